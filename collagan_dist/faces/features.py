"""Painting of brows, eyes, nose, mouth and glasses into the picture, with their classes into the label map."""

from __future__ import annotations

import numpy as np

from collagan_dist.faces.canvas import box_around
from collagan_dist.faces.curves import LIP_CURVES, ellipse, eye_centre, eye_lids, lips, nose_outline, shifted, spline
from collagan_dist.faces.skin import FACE_CLASS, PaintContext
from collagan_dist.faces.traits import blend, brighten

# Classes of the label map (types.CLASSES); -1 is left in the picture.
_BROW = {-1: 2, 1: 3}
_EYE = {-1: 4, 1: 5}
_EYE_PART = {-1: "left eye", 1: "right eye"}  # of traits.LIT_PARTS
_NOSE, _UPPER_LIP, _TEETH, _LOWER_LIP = 6, 7, 8, 9


def paint_features(context: PaintContext) -> None:
    """Paint all features over the skin; glasses last, since they cover the others."""
    _paint_nose(context)
    for side in (-1, 1):
        _paint_eye(context, side)
        _paint_brow(context, side)
    _paint_mouth(context)
    _paint_glasses(context)


def _paint_nose(context: PaintContext) -> None:
    """Write the nose's label and paint the nostrils. The nose itself is shaded skin (skin.py)."""
    view, nose = context.view, context.traits.nose
    outline, lift = nose_outline(nose)
    context.canvas.fill(view.front(outline, lift), None, _NOSE)
    dark = brighten(context.traits.head.skin, 0.36)
    for side in (-1, 1):
        hole = ellipse(side * nose.width * 0.46, 0.7 * nose.length, nose.width * 0.23, 0.03, 12)
        context.canvas.fill(view.front(hole, 0.17), context.shade(dark, 0, 0.7, "nose"))


def _paint_eye(context: PaintContext, side: int) -> None:
    eyes, view, canvas = context.traits.eyes[side], context.view, context.canvas
    part = _EYE_PART[side]
    x, y = eye_centre(eyes, side)
    upper, lower = eye_lids(eyes, side)
    opening = view.front(np.vstack([upper, lower[::-1]]))
    # The eyeball is painted into a copy and pasted through the opening, so that iris and pupil are cut off by the lids.
    box = box_around(opening)
    patch = canvas.crop(box)
    patch.image[:] = context.shade((232, 228, 224), x, y, part)
    # The upper lid's shadow on the eyeball, and the red inner corner.
    lid = np.vstack([shifted(upper, 0, -0.1), shifted(upper[::-1], 0, 0.026)])
    patch.fill(view.front(lid), context.shade((176, 166, 162), x, y, part))
    corner = view.front(shifted(ellipse(0, 0, 0.05, 0.04, 10), *lower[0]))
    patch.fill(corner, context.shade((206, 150, 142), x, y, part))
    at = (x + eyes.gaze[0], y * 0.9 + eyes.gaze[1])
    iris = context.shade(eyes.iris_rgb, x, y, part)
    patch.fill(view.front(ellipse(*at, eyes.iris, eyes.iris, 24)), brighten(iris, 0.5))
    patch.fill(view.front(ellipse(*at, eyes.iris * 0.86, eyes.iris * 0.86, 24)), iris)
    patch.fill(view.front(ellipse(at[0], at[1] + 0.035, eyes.iris * 0.62, eyes.iris * 0.5, 18)), brighten(iris, 1.28))
    pupil = eyes.iris * eyes.pupil
    patch.fill(view.front(ellipse(*at, pupil, pupil, 18)), (14, 12, 14))
    # The reflection of the light, on the side that it comes from.
    glint = 0.035 if context.light(part).x > 0 else -0.035
    patch.fill(view.front(ellipse(at[0] + glint, at[1] - 0.038, 0.023, 0.023, 10)), (250, 250, 248))
    canvas.paste(patch.image, box, opening, _EYE[side])
    _paint_lids(context, side, upper, lower)


def _paint_lids(context: PaintContext, side: int, upper: np.ndarray, lower: np.ndarray) -> None:
    """Paint the crease, the rim of the lower lid, the lash line and, if they are long, lashes."""
    eyes, view, canvas = context.traits.eyes[side], context.view, context.canvas
    skin = context.shade(context.traits.head.skin, side * eyes.spread, 0, _EYE_PART[side])
    dark = blend(brighten(skin, 0.3), (24, 18, 16), 0.3 + 0.5 * eyes.lashes)
    crease = upper[1:] - np.column_stack([np.zeros(14), np.linspace(0.35, 1, 14) * (eyes.crease + 0.025)])
    canvas.stroke([view.front(crease)], brighten(skin, 0.68), 0.5)
    canvas.stroke([view.front(lower)], brighten(skin, 0.66), 0.5)
    # The lash line grows thicker from the inner to the outer corner.
    thick = (0.01 + 0.016 * eyes.lashes) * 2
    fade = np.column_stack([np.zeros(15), np.linspace(0.25, 1, 15) ** 0.7 * thick])
    tail = shifted(upper[-1:], side * (0.02 + 0.05 * eyes.lashes), -0.03 * eyes.lashes)
    lid = np.vstack([upper + fade * 0.25, tail, upper[::-1] - fade[::-1]])
    canvas.fill(view.front(lid), dark)
    if eyes.lashes > 0.5:
        roots = upper[5::2] - fade[5::2] * 0.5
        lean = np.column_stack([side * np.linspace(0.0, 0.06, len(roots)), np.full(len(roots), -0.05)]) * eyes.lashes
        canvas.stroke([view.front(np.array([a, a + b])) for a, b in zip(roots, lean, strict=True)], dark, 0.5)


def _paint_brow(context: PaintContext, side: int) -> None:
    brows, eyes, view = context.traits.brows[side], context.traits.eyes[side], context.view
    t = np.linspace(-1, 1, 12)
    x = side * (eyes.spread + 0.02 + brows.width * t)
    middle = -brows.height - brows.tilt * t - brows.arch * (1 - (t - 0.25) ** 2)
    thick = brows.thick * np.clip(1.05 - 0.15 * t - 0.75 * np.clip(t - 0.15, 0, 1) ** 1.3, 0.1, 1)
    thick[:2] *= (0.4, 0.85)  # the inner end is pointed
    rgb = context.shade(blend(brows.rgb, context.traits.head.skin, 0.12), side * eyes.spread, -0.3, _EYE_PART[side])
    upper, lower = np.column_stack([x, middle - thick / 2]), np.column_stack([x, middle + thick / 2])
    context.canvas.fill(view.front(np.vstack([upper, lower[::-1]]), 0.03), rgb, _BROW[side])
    # Single hairs, alternately darker and lighter than the brow.
    for start, share in ((0, 0.86), (1, 1.14)):
        hairs = [np.array([lower[i] + (0, -0.01), upper[i + 1] + (0, 0.008)]) for i in range(start, 11, 2)]
        context.canvas.stroke([view.front(hair, 0.03) for hair in hairs], brighten(rgb, share), 0.5)


def _paint_mouth(context: PaintContext) -> None:
    mouth, view, canvas = context.traits.mouth, context.view, context.canvas
    line = lips(mouth)
    top, upper_inner, lower_inner, bottom = (view.front(line[name], 0.04) for name in LIP_CURVES)
    upper_rgb = context.shade(brighten(mouth.rgb, 0.86), 0, mouth.y, "mouth")
    lower_rgb = context.shade(mouth.rgb, 0, mouth.y, "mouth")
    if mouth.gap:
        _paint_inner_mouth(context, upper_inner, lower_inner)
    canvas.fill(np.vstack([top, upper_inner[::-1]]), upper_rgb, _UPPER_LIP)
    canvas.fill(np.vstack([lower_inner, bottom[::-1]]), lower_rgb, _LOWER_LIP)
    # Light makes the lips look full: a lighter middle of the lower lip with a highlight, and a lighter rim of the upper one.
    for cut, low, high, share in ((3, 0.22, 0.8, 1.06), (6, 0.32, 0.62, 1.15)):
        rim, edge = ((lower_inner + (bottom - lower_inner) * at)[cut:-cut] for at in (low, high))
        canvas.fill(np.vstack([rim, edge[::-1]]), brighten(lower_rgb, share))
    canvas.stroke([(top + (upper_inner - top) * 0.4)[4:-4]], brighten(upper_rgb, 1.1), 0.5)
    if not mouth.gap:
        canvas.stroke([upper_inner], brighten(upper_rgb, 0.45), 0.5)


def _paint_inner_mouth(context: PaintContext, upper: np.ndarray, lower: np.ndarray) -> None:
    """Paint the open mouth between the lips: dark, a tongue, a row of upper teeth.

    All of it has the class teeth: there is no class for the inside of a mouth.
    """
    mouth, view, canvas = context.traits.mouth, context.view, context.canvas
    line = lips(mouth)
    opening = np.vstack([upper, lower[::-1]])
    box = box_around(opening)
    patch = canvas.crop(box)
    patch.image[:] = (58, 22, 24)
    patch.fill(view.front(ellipse(0, mouth.y + mouth.gap * 1.05, mouth.width * 0.6, mouth.gap * 0.42)), (150, 66, 70))
    # The part of the opening that teeth cover, from the upper lip down.
    share = 0.35 + 0.5 * mouth.teeth
    bite = line["upper_inner"] + (line["lower_inner"] - line["upper_inner"]) * share
    white = context.shade((236, 231, 220), 0, mouth.y, "mouth")
    # Twice: the teeth towards the corners are darker.
    for cut, share in ((1, 0.8), (4, 1.0)):
        row = np.vstack([line["upper_inner"][cut:-cut] - (0, 0.02), bite[cut:-cut][::-1]])
        patch.fill(view.front(row, 0.04), brighten(white, share))
    gaps = [np.array([line["upper_inner"][i], bite[i]]) for i in range(4, 17, 2)]
    patch.stroke([view.front(gap, 0.04) for gap in gaps], brighten(white, 0.86), 0.5)
    patch.stroke([view.front(shifted(line["upper_inner"], 0, 0.012), 0.04)], brighten(white, 0.6), 0.5)
    canvas.paste(patch.image, box, opening, _TEETH)


def _paint_glasses(context: PaintContext) -> None:
    """Paint glasses. Lenses are clear and do not change labels; the frame has the class face, whatever it covers."""
    glasses, view, canvas = context.traits.glasses, context.view, context.canvas
    if glasses is None:
        return
    unit = ellipse(0, 0, 1, 1, 28)
    # A superellipse: round=1 is an ellipse, smaller values are more rectangular.
    square = np.sign(unit) * np.abs(unit) ** glasses.round
    rims = []
    for side in (-1, 1):
        lens = shifted(square * (glasses.width, glasses.height), side * 0.5, 0.06)
        rims.append(view.front(lens, 0.12))
        canvas.fill_transparent(rims[-1], (70, 80, 92), glasses.tint)
        glare = shifted(np.array([(-0.2, -0.16), (-0.06, -0.18), (-0.18, 0.1), (-0.26, 0.08)]), side * 0.5, 0.06)
        canvas.fill_transparent(view.front(glare, 0.12), (255, 255, 255), 0.13)
    width = glasses.thick * view.scale
    canvas.stroke(rims, glasses.rgb, width, FACE_CLASS, closed=True)
    inner = 0.5 - glasses.width
    bridge = view.front(spline([(-inner, 0.0), (0.0, -0.06), (inner, 0.0)], 4), 0.16)
    arms = [view.points(np.array([(s * (0.5 + glasses.width), 0.0, 0.95), (s * 1.12, -0.02, 0.1)])) for s in (-1, 1)]
    canvas.stroke([bridge, *arms], glasses.rgb, width, FACE_CLASS)
