"""Biharmonic filling (Damelin and Hoang 2018): the smoothest continuation of a picture into its hole, equal to scikit-image's to 1e-9.

The equations of a hole are solved by a banded Cholesky factorization. Pictures of a batch share it if their holes are equal but for
the place, two pixels or more from the picture's border.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.linalg import cho_solve_banded, cholesky_banded

_REACH = 2  # pixels from which an equation takes its values


def fill(image_BCHW: np.ndarray, hole_BHW: np.ndarray) -> np.ndarray:
    """Return float64 images whose holes are filled, within the range of each channel outside the hole.

    A picture without a hole stays as it is; one that is all hole becomes zero.
    """
    filled = np.where(hole_BHW[:, None], np.float64(0), image_BCHW)
    low, high = (_extremes(image_BCHW, hole_BHW, value) for value in (np.inf, -np.inf))
    moved = [_move_to_corner(hole) for hole in hole_BHW]
    # In an order that puts equal holes one after the other.
    for number in sorted(range(len(moved)), key=lambda n: moved[n][0]):
        hole = hole_BHW[number]
        if hole.any() and not hole.all():
            # One picture at a time: the last bits of a solution depend on how many are solved at once, and so would depend on the ranks.
            values = _solve(filled[number], *moved[number])
            filled[number][:, hole] = values.clip(low[number], high[number])
    return filled


def _extremes(image_BCHW: np.ndarray, hole_BHW: np.ndarray, beyond: float) -> np.ndarray:
    """Return (B, C, 1), the least value of each channel outside the hole for `beyond` = inf, the largest for -inf."""
    outside = np.where(hole_BHW[:, None], beyond, image_BCHW).reshape(*image_BCHW.shape[:2], -1)
    return outside.min(2, keepdims=True) if beyond > 0 else outside.max(2, keepdims=True)


def _move_to_corner(hole_HW: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Return the hole's pixels, moved to the row and column _REACH unless its equations would change, and by how much."""
    shift = [0, 0]
    for axis, size in enumerate(hole_HW.shape):
        where = np.flatnonzero(hole_HW.any(1 - axis))
        # Equations near the picture's border are others.
        if len(where) and where[0] >= _REACH and where[-1] < size - _REACH:
            shift[axis] = _REACH - int(where[0])
    return np.roll(hole_HW, shift, (0, 1)).tobytes(), (shift[0], shift[1])


def _solve(known_CHW: np.ndarray, moved: bytes, shift: tuple[int, int]) -> np.ndarray:
    """Return (C, N) values of the hole's pixels, row by row, where `known_CHW` is 0 in the hole."""
    equations, order, factor = _factorize(moved, known_CHW.shape[1:])
    known = np.roll(known_CHW, shift, (1, 2)).reshape(len(known_CHW), -1)
    values = np.empty((len(known), len(order)))
    values[:, order] = cho_solve_banded((factor, True), -(equations @ known.T), check_finite=False).T
    return values


@lru_cache(1)  # `fill` asks for equal holes one after the other; that of a block of 256x256 pixels takes 64 MB
def _factorize(hole: bytes, shape: tuple[int, int]) -> tuple[sparse.csr_array, np.ndarray, np.ndarray]:
    """Return the equations of a hole's N pixels, (N, H·W), the order that they are in, and the Cholesky factor of their part inside it.

    The factor is banded, (bands, N).
    """
    inside = np.flatnonzero(np.frombuffer(hole, bool))
    row, column = np.divmod(inside, shape[1])
    # Along the hole's longer side, which makes the band narrow. (A sparse factorization in an order that keeps zeros, as SuperLU's,
    # takes three times as long for pictures of 128x128.)
    order = np.lexsort((column, row) if np.ptp(column) <= np.ptp(row) else (row, column))
    equations = _operator(*shape)[inside[order]]
    within = equations[:, inside[order]].tocoo()
    lower = within.row >= within.col
    below, column = (within.row - within.col)[lower], within.col[lower]
    bands = np.zeros((below.max() + 1, len(inside)))
    bands[below, column] = within.data[lower]
    return equations, order, cholesky_banded(bands, overwrite_ab=True, lower=True, check_finite=False)


@lru_cache(2)
def _operator(height: int, width: int) -> sparse.csr_array:
    """Return the square of the five-point Laplacian, (H·W, H·W); at the picture's border a pixel is its own neighbour."""
    laplacian = sparse.kronsum(_second_difference(width), _second_difference(height))
    return sparse.csr_array(laplacian @ laplacian)


def _second_difference(size: int) -> sparse.dia_array:
    middle = np.full(size, 2.0)
    middle[[0, -1]] -= 1
    return sparse.diags_array([middle, -np.ones(size - 1), -np.ones(size - 1)], offsets=[0, 1, -1])
