"""Biharmonic filling (Damelin and Hoang 2018): the smoothest continuation of a picture into its hole, equal to scikit-image's to 1e-9.

The equations of a hole are solved by a sparse LU factorization. Pictures of a batch share it if their holes are equal but for the place, two pixels
or more from the picture's border.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

_REACH = 2  # pixels from which an equation takes its values


def fill(image_BCHW: np.ndarray, hole_BHW: np.ndarray) -> np.ndarray:
    """Return float64 images whose holes are filled, within the range of each channel outside the hole.

    A picture without a hole stays as it is; one that is all hole becomes zero.
    """
    filled = np.where(hole_BHW[:, None], np.float64(0), image_BCHW)
    moved = [_move_to_corner(hole) for hole in hole_BHW]
    # In an order that puts equal holes one after the other.
    for number in sorted(range(len(moved)), key=lambda n: moved[n][0]):
        hole = hole_BHW[number]
        if hole.any() and not hole.all():
            # One picture at a time: the last bits of a solution depend on how many are solved at once, and so would depend on the ranks.
            _fill_one(filled[number], hole, *moved[number])
    return filled


def _move_to_corner(hole_HW: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Return the hole's pixels, moved to the row and column _REACH unless its equations would change, and by how much."""
    shift = [0, 0]
    for axis, size in enumerate(hole_HW.shape):
        where = np.flatnonzero(hole_HW.any(1 - axis))
        # Equations near the picture's border are others.
        if len(where) and where[0] >= _REACH and where[-1] < size - _REACH:
            shift[axis] = _REACH - int(where[0])
    return np.roll(hole_HW, shift, (0, 1)).tobytes(), (shift[0], shift[1])


def _fill_one(image_CHW: np.ndarray, hole_HW: np.ndarray, moved: bytes, shift: tuple[int, int]) -> None:
    equations, factors = _factorize(moved, hole_HW.shape)
    known = np.roll(image_CHW, shift, (1, 2)).reshape(len(image_CHW), -1)
    values = factors.solve(-(equations @ known.T)).T
    outside = image_CHW[:, ~hole_HW]
    image_CHW[:, hole_HW] = values.clip(outside.min(1, keepdims=True), outside.max(1, keepdims=True))


@lru_cache(1)  # `fill` asks for equal holes one after the other; that of a block of 256x256 pixels takes 150 MB
def _factorize(hole: bytes, shape: tuple[int, int]) -> tuple[sparse.csr_array, SuperLU]:
    """Return the equations of a hole's N pixels, (N, H·W), and the factors of their part inside the hole."""
    inside = np.frombuffer(hole, bool)
    equations = _operator(*shape)[inside]
    # Symmetric and positive definite, so that no pivots are needed: half the time.
    options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    return equations, splu(equations[:, inside].tocsc(), **options)


@lru_cache(2)
def _operator(height: int, width: int) -> sparse.csr_array:
    """Return the square of the five-point Laplacian, (H·W, H·W); at the picture's border a pixel is its own neighbour."""
    laplacian = sparse.kronsum(_second_difference(width), _second_difference(height))
    return sparse.csr_array(laplacian @ laplacian)


def _second_difference(size: int) -> sparse.dia_array:
    middle = np.full(size, 2.0)
    middle[[0, -1]] -= 1
    return sparse.diags_array([middle, -np.ones(size - 1), -np.ones(size - 1)], offsets=[0, 1, -1])
