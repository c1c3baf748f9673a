"""Curves in face units (traits.py): splines, ellipses, and the outlines that several modules paint with."""

from __future__ import annotations

import functools

import numpy as np

from collagan_dist.faces.traits import Eyes, Head, Mouth, Nose


@functools.cache
def circle(count: int) -> np.ndarray:
    """Return (count, 2) points of the unit circle."""
    angle = np.arange(count) * (2 * np.pi / count)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def ellipse(x: float, y: float, rx: float, ry: float, count: int = 20) -> np.ndarray:
    return circle(count) * (rx, ry) + (x, y)


def shifted(points_N2: np.ndarray, x: float, y: float) -> np.ndarray:
    return points_N2 + np.array([x, y])


@functools.cache
def _spline_matrix(count: int, steps: int) -> np.ndarray:
    """Return the (rows, count) matrix of a Catmull-Rom spline through `count` points with `steps` samples per span."""
    t = (np.arange(steps) / steps)[:, None]
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros(((count - 1) * steps + 1, count))
    for span in range(count - 1):
        for offset in range(4):
            # Beyond its ends the line is continued by its first and last point.
            column = min(max(span + offset - 1, 0), count - 1)
            matrix[span * steps : (span + 1) * steps, column] += weights[:, offset]
    matrix[-1, -1] = 1.0
    return matrix


def spline(points_N2: np.ndarray | list[tuple[float, float]], steps: int = 5) -> np.ndarray:
    """Return a smooth open curve through the points."""
    points = np.asarray(points_N2, dtype=float)
    return _spline_matrix(len(points), steps) @ points


def resample(points_N2: np.ndarray, count: int) -> np.ndarray:
    """Return `count` points of a polyline at equal steps of the index."""
    at = np.linspace(0, len(points_N2) - 1, count)
    low = np.minimum(at.astype(int), len(points_N2) - 2)
    return points_N2[low] + (points_N2[low + 1] - points_N2[low]) * (at - low)[:, None]


def face_outline(head: Head, gap: float) -> np.ndarray:
    """Return the (64, 2) outline of skull and jaw; an open mouth (`gap`) lowers the chin."""
    unit = circle(64)
    chin = head.chin + 0.7 * gap
    down = np.clip(unit[:, 1], 0, 1)
    # A superellipse whose exponent is the jaw's below, and 0.86 above, where all skulls are alike.
    x = np.sign(unit[:, 0]) * np.abs(unit[:, 0]) ** np.where(unit[:, 1] > 0, head.jaw, 0.86) * head.width
    # The face becomes narrower from the cheekbones to the jaw.
    x *= 1 - 0.1 * down**1.5
    up = np.clip(unit[:, 1], -1, 0)
    y = 0.15 + (chin - 0.15) * down**0.95 + (0.15 - head.top) * up
    return np.column_stack([x, y])


_T = np.linspace(-1, 1, 15)
# Height of a lid from corner to corner: flatter in the middle than a parabola, steeper at the corners.
_LID = (1 - np.abs(_T) ** 2.1) ** 0.85


def eye_lids(eyes: Eyes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper and lower lid (15, 2), from inner to outer corner; `side` -1 is left in the picture."""
    x = side * (eyes.spread + eyes.width * _T)
    lean = -eyes.tilt * _T
    # The upper lid peaks a little towards the nose, the lower a little outwards.
    upper = lean - eyes.upper * _LID * (1 - 0.12 * _T)
    lower = lean + eyes.lower * _LID * (1 + 0.15 * _T)
    return np.column_stack([x, upper]), np.column_stack([x, lower])


def eye_centre(eyes: Eyes, side: int) -> tuple[float, float]:
    """Return the middle of the eye's opening, which is the landmark."""
    return side * eyes.spread, (eyes.lower - eyes.upper) / 2


def nose_tip(nose: Nose) -> tuple[float, float, float]:
    """Return x, y and the lift off the face's surface."""
    return 0.0, 0.57 * nose.length, nose.depth


def nose_outline(nose: Nose) -> tuple[np.ndarray, np.ndarray]:
    """Return the (N, 2) outline of the nose, from the bridge down and back up on the right, and its lifts (N,)."""
    long, half = nose.length, nose.width
    # x, y and lift. The wings are the widest part; the lift is largest along the bridge and at the tip.
    left = np.array(
        [
            (-nose.bridge, 0.0, 0.06),
            (-nose.bridge * 0.95, 0.22 * long, 0.16),
            (-nose.bridge * 1.15, 0.4 * long, 0.2),
            (-half * 0.86, 0.52 * long, 0.12),
            (-half, 0.62 * long, 0.08),
            (-half * 0.86, 0.71 * long, 0.1),
            (-half * 0.45, 0.73 * long, 0.2),
            (0.0, 0.76 * long, 0.24),
        ]
    )
    outline = spline(np.vstack([left, left[-2::-1] * (-1, 1, 1)]), 4)
    return outline[:, :2], outline[:, 2]


# The curves of the mouth from top to bottom: the outer and inner edges of both lips.
LIP_CURVES = ("upper_outer", "upper_inner", "lower_inner", "lower_outer")


def lips(mouth: Mouth) -> dict[str, np.ndarray]:
    """Return the LIP_CURVES (21, 2), each from the left to the right corner."""
    t = np.linspace(-1, 1, 21)
    x = mouth.width * t
    bend = 1 - t * t
    # `smile` lifts the corners above the middle of the mouth.
    line = mouth.y - mouth.smile * (t * t - 0.35)
    round_ = np.sqrt(np.clip(bend, 0, 1))
    # The line between the lips is a little lower in the middle.
    top = line - 0.12 * mouth.gap * bend + 0.014 * np.exp(-((t / 0.25) ** 2))
    bottom = top + mouth.gap * round_**1.3
    cupid = mouth.bow * np.exp(-((t / 0.16) ** 2))
    upper = top - mouth.upper * bend**0.8 + cupid - 0.012 * np.exp(-(((np.abs(t) - 0.28) / 0.2) ** 2))
    # All curves meet in the corners, which are the landmarks.
    upper[[0, -1]] = top[[0, -1]]
    lower = bottom + mouth.lower * bend**0.75
    return {name: np.column_stack([x, y]) for name, y in zip(LIP_CURVES, (upper, top, bottom, lower), strict=True)}
