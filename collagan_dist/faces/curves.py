"""Curves in face units (see `traits`): smoothing, ellipses, and the outlines that several painters share."""

from __future__ import annotations

import functools

import numpy as np

from collagan_dist.faces.traits import Eyes, Head, Mouth, Nose


@functools.cache
def circle(count: int) -> np.ndarray:
    """(count, 2) points of the unit circle."""
    angle = np.arange(count) * (2 * np.pi / count)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def ellipse(x: float, y: float, rx: float, ry: float, count: int = 20) -> np.ndarray:
    return circle(count) * (rx, ry) + (x, y)


def moved(points_N2: np.ndarray, x: float, y: float) -> np.ndarray:
    return points_N2 + np.array([x, y])


@functools.cache
def _spline(count: int, steps: int) -> np.ndarray:
    """(rows, count) matrix of a Catmull-Rom spline through `count` points with `steps` samples per span."""
    t = (np.arange(steps) / steps)[:, None]
    weights = 0.5 * np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros(((count - 1) * steps + 1, count))
    for span in range(count - 1):
        for offset in range(4):
            column = min(max(span + offset - 1, 0), count - 1)
            matrix[span * steps : (span + 1) * steps, column] += weights[:, offset]
    matrix[-1, -1] = 1.0
    return matrix


def smooth(points_N2: np.ndarray | list[tuple[float, float]], steps: int = 5) -> np.ndarray:
    """A smooth open curve through the points."""
    points = np.asarray(points_N2, dtype=float)
    return _spline(len(points), steps) @ points


def along(points_N2: np.ndarray, count: int) -> np.ndarray:
    """`count` points at equal steps of the index along a polyline."""
    at = np.linspace(0, len(points_N2) - 1, count)
    low = np.minimum(at.astype(int), len(points_N2) - 2)
    return points_N2[low] + (points_N2[low + 1] - points_N2[low]) * (at - low)[:, None]


def face_outline(head: Head, gap: float) -> np.ndarray:
    """(64, 2) skull and jaw; an open mouth (`gap`) lowers the chin."""
    unit = circle(64)
    chin = head.chin + 0.7 * gap
    down = np.clip(unit[:, 1], 0, 1)
    x = np.sign(unit[:, 0]) * np.abs(unit[:, 0]) ** np.where(unit[:, 1] > 0, head.jaw, 0.86) * head.width
    # Below the cheekbones the sides first run almost straight down, then turn into the jaw.
    x *= 1 - 0.1 * down**1.5
    up = np.clip(unit[:, 1], -1, 0)
    y = 0.15 + (chin - 0.15) * down**0.95 + (0.15 - head.top) * up
    return np.column_stack([x, y])


_T = np.linspace(-1, 1, 15)
_LID = (1 - np.abs(_T) ** 2.1) ** 0.85


def eye_lids(eyes: Eyes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower lid (15, 2), inner to outer corner; `side` -1 is left in the picture."""
    x = side * (eyes.spread + eyes.width * _T)
    lean = -eyes.tilt * _T
    # The upper lid peaks a little towards the nose, the lower a little outwards.
    upper = lean - eyes.upper * _LID * (1 - 0.12 * _T)
    lower = lean + eyes.lower * _LID * (1 + 0.15 * _T)
    return np.column_stack([x, upper]), np.column_stack([x, lower])


def eye_centre(eyes: Eyes, side: int) -> tuple[float, float]:
    """The middle of the opening."""
    return side * eyes.spread, (eyes.lower - eyes.upper) / 2


def nose_tip(nose: Nose) -> tuple[float, float, float]:
    """x, y and the lift off the face's surface."""
    return 0.0, 0.57 * nose.length, nose.depth


def nose_outline(nose: Nose) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) outline of the nose from the bridge's left side down and back up, and its lifts (N,)."""
    long, half = nose.length, nose.width
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
    whole = smooth(np.vstack([left, left[-2::-1] * (-1, 1, 1)]), 4)
    return whole[:, :2], whole[:, 2]


def lips(mouth: Mouth) -> dict[str, np.ndarray]:
    """The four curves of the mouth (21, 2), left to right, all from corner to corner."""
    t = np.linspace(-1, 1, 21)
    x = mouth.width * t
    bend = 1 - t * t
    # The corners are lifted by `smile` against the middle of the mouth.
    line = mouth.y - mouth.smile * (t * t - 0.35)
    round_ = np.sqrt(np.clip(bend, 0, 1))
    # Between the lips the line dips a little in the middle.
    top = line - 0.12 * mouth.gap * bend + 0.014 * np.exp(-((t / 0.25) ** 2))
    bottom = top + mouth.gap * round_**1.3
    cupid = mouth.bow * np.exp(-((t / 0.16) ** 2))
    upper = top - mouth.upper * bend**0.8 + cupid - 0.012 * np.exp(-(((np.abs(t) - 0.28) / 0.2) ** 2))
    upper[[0, -1]] = top[[0, -1]]
    lower = bottom + mouth.lower * bend**0.75
    return {name: np.column_stack([x, y]) for name, y in (("a", upper), ("b", top), ("c", bottom), ("d", lower))}
