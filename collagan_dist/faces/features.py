"""Brows, eyes, nose, mouth and glasses, each with its label."""

from __future__ import annotations

import numpy as np

from collagan_dist.faces.canvas import box_around
from collagan_dist.faces.curves import ellipse, eye_centre, eye_lids, lips, moved, nose_outline, smooth
from collagan_dist.faces.skin import FACE, Sitting
from collagan_dist.faces.traits import blend, lit

_BROW = {-1: 2, 1: 3}
_EYE = {-1: 4, 1: 5}
_NOSE, _UPPER_LIP, _TEETH, _LOWER_LIP = 6, 7, 8, 9


def paint_features(sitting: Sitting) -> None:
    _paint_nose(sitting)
    for side in (-1, 1):
        _paint_eye(sitting, side)
        _paint_brow(sitting, side)
    _paint_mouth(sitting)
    _paint_glasses(sitting)


def _paint_nose(sitting: Sitting) -> None:
    """The nose is shaded skin (see `skin`); here are its label and the nostrils."""
    view, nose = sitting.view, sitting.traits.nose
    outline, lift = nose_outline(nose)
    sitting.canvas.fill(view.front(outline, lift), None, _NOSE)
    dark = lit(sitting.traits.head.skin, 0.36)
    for side in (-1, 1):
        hole = ellipse(side * nose.width * 0.46, 0.7 * nose.length, nose.width * 0.23, 0.03, 12)
        sitting.canvas.fill(view.front(hole, 0.17), sitting.lit(dark, 0, 0.7))


def _paint_eye(sitting: Sitting, side: int) -> None:
    eyes, view, canvas = sitting.traits.eyes, sitting.view, sitting.canvas
    x, y = eye_centre(eyes, side)
    upper, lower = eye_lids(eyes, side)
    opening = view.front(np.vstack([upper, lower[::-1]]))
    box = box_around(opening)
    patch = canvas.cut(box)
    patch.image[:] = sitting.lit((232, 228, 224), x, y)
    # Shade of the upper lid on the ball, and the red corner towards the nose.
    lid = np.vstack([moved(upper, 0, -0.1), moved(upper[::-1], 0, 0.026)])
    patch.fill(view.front(lid), sitting.lit((176, 166, 162), x, y))
    patch.fill(view.front(moved(ellipse(0, 0, 0.05, 0.04, 10), *lower[0])), sitting.lit((206, 150, 142), x, y))
    at = (x + eyes.gaze[0], y * 0.9 + eyes.gaze[1])
    iris = sitting.lit(eyes.iris_rgb, x, y)
    patch.fill(view.front(ellipse(*at, eyes.iris, eyes.iris, 24)), lit(iris, 0.5))
    patch.fill(view.front(ellipse(*at, eyes.iris * 0.86, eyes.iris * 0.86, 24)), iris)
    patch.fill(view.front(ellipse(at[0], at[1] + 0.035, eyes.iris * 0.62, eyes.iris * 0.5, 18)), lit(iris, 1.28))
    pupil = eyes.iris * eyes.pupil
    patch.fill(view.front(ellipse(*at, pupil, pupil, 18)), (14, 12, 14))
    glint = 0.035 if sitting.light.x > 0 else -0.035
    patch.fill(view.front(ellipse(at[0] + glint, at[1] - 0.038, 0.023, 0.023, 10)), (250, 250, 248))
    canvas.paste(patch.image, box, opening, _EYE[side])
    _paint_lids(sitting, side, upper, lower)


def _paint_lids(sitting: Sitting, side: int, upper: np.ndarray, lower: np.ndarray) -> None:
    """Lash line, lashes, crease and the rim of the lower lid."""
    eyes, view, canvas = sitting.traits.eyes, sitting.view, sitting.canvas
    skin = sitting.lit(sitting.traits.head.skin, side * eyes.spread, 0)
    dark = blend(lit(skin, 0.3), (24, 18, 16), 0.3 + 0.5 * eyes.lashes)
    crease = upper[1:] - np.column_stack([np.zeros(14), np.linspace(0.35, 1, 14) * (eyes.crease + 0.025)])
    canvas.stroke([view.front(crease)], lit(skin, 0.68), 0.5)
    canvas.stroke([view.front(lower)], lit(skin, 0.66), 0.5)
    thick = (0.01 + 0.016 * eyes.lashes) * 2
    fade = np.column_stack([np.zeros(15), np.linspace(0.25, 1, 15) ** 0.7 * thick])
    tail = moved(upper[-1:], side * (0.02 + 0.05 * eyes.lashes), -0.03 * eyes.lashes)
    lid = np.vstack([upper + fade * 0.25, tail, upper[::-1] - fade[::-1]])
    canvas.fill(view.front(lid), dark)
    if eyes.lashes > 0.5:
        roots = upper[5::2] - fade[5::2] * 0.5
        lean = np.column_stack([side * np.linspace(0.0, 0.06, len(roots)), np.full(len(roots), -0.05)]) * eyes.lashes
        canvas.stroke([view.front(np.array([a, a + b])) for a, b in zip(roots, lean, strict=True)], dark, 0.5)


def _paint_brow(sitting: Sitting, side: int) -> None:
    brows, eyes, view = sitting.traits.brows, sitting.traits.eyes, sitting.view
    t = np.linspace(-1, 1, 12)
    x = side * (eyes.spread + 0.02 + brows.width * t)
    middle = -brows.height - brows.tilt * t - brows.arch * (1 - (t - 0.25) ** 2)
    thick = brows.thick * np.clip(1.05 - 0.15 * t - 0.75 * np.clip(t - 0.15, 0, 1) ** 1.3, 0.1, 1)
    thick[:2] *= (0.4, 0.85)
    rgb = sitting.lit(blend(brows.rgb, sitting.traits.head.skin, 0.12), side * eyes.spread, -0.3)
    upper, lower = np.column_stack([x, middle - thick / 2]), np.column_stack([x, middle + thick / 2])
    sitting.canvas.fill(view.front(np.vstack([upper, lower[::-1]]), 0.03), rgb, _BROW[side])
    # Single hairs, a little darker and lighter, rising outwards.
    for start, share in ((0, 0.86), (1, 1.14)):
        hairs = [
            view.front(np.array([lower[i] + (0, -0.01), upper[i + 1] + (0, 0.008)]), 0.03) for i in range(start, 11, 2)
        ]
        sitting.canvas.stroke(hairs, lit(rgb, share), 0.5)


def _paint_mouth(sitting: Sitting) -> None:
    mouth, view, canvas = sitting.traits.mouth, sitting.view, sitting.canvas
    line = lips(mouth)
    a, b, c, d = (view.front(line[name], 0.04) for name in "abcd")
    upper_rgb = sitting.lit(lit(mouth.rgb, 0.86), 0, mouth.y)
    lower_rgb = sitting.lit(mouth.rgb, 0, mouth.y)
    if mouth.gap:
        _paint_inner_mouth(sitting, b, c)
    canvas.fill(np.vstack([a, b[::-1]]), upper_rgb, _UPPER_LIP)
    canvas.fill(np.vstack([c, d[::-1]]), lower_rgb, _LOWER_LIP)
    # Fullness: a lighter middle of the lower lip with a gleam, a lighter rim above, a dark line between closed lips.
    for cut, low, high, share in ((3, 0.22, 0.8, 1.06), (6, 0.32, 0.62, 1.15)):
        middle = slice(cut, -cut)
        body = np.vstack([(c + (d - c) * low)[middle], (c + (d - c) * high)[middle][::-1]])
        canvas.fill(body, lit(lower_rgb, share))
    canvas.stroke([(a + (b - a) * 0.4)[4:-4]], lit(upper_rgb, 1.1), 0.5)
    if not mouth.gap:
        canvas.stroke([b], lit(upper_rgb, 0.45), 0.5)


def _paint_inner_mouth(sitting: Sitting, b: np.ndarray, c: np.ndarray) -> None:
    """The opening: dark, a tongue, a row of upper teeth; all of it is class teeth."""
    mouth, view, canvas = sitting.traits.mouth, sitting.view, sitting.canvas
    line = lips(mouth)
    opening = np.vstack([b, c[::-1]])
    box = box_around(opening)
    patch = canvas.cut(box)
    patch.image[:] = (58, 22, 24)
    patch.fill(view.front(ellipse(0, mouth.y + mouth.gap * 1.05, mouth.width * 0.6, mouth.gap * 0.42)), (150, 66, 70))
    share = 0.35 + 0.5 * mouth.teeth
    bite = line["b"] + (line["c"] - line["b"]) * share
    white = sitting.lit((236, 231, 220), 0, mouth.y)
    for cut, share in ((1, 0.8), (4, 1.0)):
        row = np.vstack([line["b"][cut:-cut] - (0, 0.02), bite[cut:-cut][::-1]])
        patch.fill(view.front(row, 0.04), lit(white, share))
    gaps = [np.array([line["b"][i], bite[i]]) for i in range(4, 17, 2)]
    patch.stroke([view.front(gap, 0.04) for gap in gaps], lit(white, 0.86), 0.5)
    patch.stroke([view.front(moved(line["b"], 0, 0.012), 0.04)], lit(white, 0.6), 0.5)
    canvas.paste(patch.image, box, opening, _TEETH)


def _paint_glasses(sitting: Sitting) -> None:
    """Clear lenses do not change the label; the frame counts as face, over whatever it covers."""
    glasses, view, canvas = sitting.traits.glasses, sitting.view, sitting.canvas
    if glasses is None:
        return
    unit = ellipse(0, 0, 1, 1, 28)
    square = np.sign(unit) * np.abs(unit) ** glasses.round
    rims = []
    for side in (-1, 1):
        lens = moved(square * (glasses.width, glasses.height), side * 0.5, 0.06)
        rims.append(view.front(lens, 0.12))
        canvas.glaze(rims[-1], (70, 80, 92), glasses.tint)
        glare = moved(np.array([(-0.2, -0.16), (-0.06, -0.18), (-0.18, 0.1), (-0.26, 0.08)]), side * 0.5, 0.06)
        canvas.glaze(view.front(glare, 0.12), (255, 255, 255), 0.13)
    width = glasses.thick * view.scale
    canvas.stroke(rims, glasses.rgb, width, FACE, closed=True)
    inner = 0.5 - glasses.width
    bridge = view.front(smooth([(-inner, 0.0), (0.0, -0.06), (inner, 0.0)], 4), 0.16)
    arms = [view.points(np.array([(s * (0.5 + glasses.width), 0.0, 0.95), (s * 1.12, -0.02, 0.1)])) for s in (-1, 1)]
    canvas.stroke([bridge, *arms], glasses.rgb, width, FACE)
