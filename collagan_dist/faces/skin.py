"""Skin: the light on the head, cheeks, nose, folds and beard as one soft colour field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collagan_dist.faces.canvas import Box, Canvas, Projection, SoftField, box_around
from collagan_dist.faces.curves import ellipse, eye_centre, face_outline, lips, moved, nose_outline, nose_tip, smooth
from collagan_dist.faces.traits import Rgb, Traits

FACE = 1


@dataclass(frozen=True)
class Light:
    """Light from (x, y, 1) in face units on an egg of a head; `contrast` is its share."""

    x: float
    y: float
    contrast: float

    def factor(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Brightness, about 1, at points of the face."""
        nx, ny = np.clip(np.asarray(x) / 1.32, -1, 1), np.clip((np.asarray(y) - 0.25) / 1.85, -1, 1)
        nz = np.sqrt(np.maximum(0.06, 1 - nx * nx - ny * ny))
        length = float(np.sqrt(1 + self.x**2 + self.y**2))
        return 1.0 + self.contrast * ((nx * self.x + ny * self.y + nz) / length - 0.86)


@dataclass(frozen=True)
class Sitting:
    """Whatever a painter needs: the traits, where they fall on the picture, the canvas, the light."""

    traits: Traits
    view: Projection
    canvas: Canvas
    light: Light

    def lit(self, rgb: Rgb, x: float, y: float) -> Rgb:
        """A feature's colour under the light at its place."""
        share = float(self.light.factor(x, y))
        return min(255.0, rgb[0] * share), min(255.0, rgb[1] * share), min(255.0, rgb[2] * share)


def paint_head(sitting: Sitting, hair_front: np.ndarray | None) -> None:
    """The skin of the face through its outline, and its label. `hair_front` throws a shadow."""
    traits, view = sitting.traits, sitting.view
    outline = view.outline(face_outline(traits.head, traits.mouth.gap))
    box = box_around(outline)
    field = SoftField(box)
    _sphere(field, sitting)
    _wide_tones(field, sitting, hair_front)
    _narrow_tones(field, sitting)
    sitting.canvas.paste(field.colours(traits.head.skin), box, outline, FACE)


def _sphere(field: SoftField, sitting: Sitting) -> None:
    """The light over the whole head, warmer where it fades."""
    x, y = field.grid()
    view = sitting.view
    flat = np.linalg.inv(view.matrix[:, :2])
    centre = view.points(np.array([[0.0, 0.3, 0.6]]))[0]
    dx, dy = x - centre[0], y - centre[1]
    factor = sitting.light.factor(flat[0, 0] * dx + flat[0, 1] * dy, flat[1, 0] * dx + flat[1, 1] * dy + 0.3)
    shade = factor.astype(np.float32)[..., None] - 1
    field.factor += shade * np.array([0.86, 1.0, 1.1], np.float32)


def _wide_tones(field: SoftField, sitting: Sitting, hair_front: np.ndarray | None) -> None:
    traits, view = sitting.traits, sitting.view
    head, eyes, mouth, nose = traits.head, traits.eyes, traits.mouth, traits.nose
    layer = field.layer()

    def tone(points: np.ndarray, rgb: Rgb) -> None:
        field.fill(layer, view.front(points), rgb)

    away = -1 if sitting.light.x > 0 else 1
    strong = 0.5 + abs(sitting.light.x)
    if hair_front is not None:
        field.fill(layer, hair_front + np.array([0.0, 0.07 * view.scale]), (-0.2, -0.22, -0.22))
    blush = 0.02 + 0.045 * head.blush
    for side in (-1, 1):
        tone(ellipse(side * 0.6, 0.62, 0.3, 0.24), (blush, -blush, -0.8 * blush))
        x, y = eye_centre(eyes, side)
        tone(ellipse(x - 0.02 * side, y - 0.04, 0.29, 0.19), (-0.1, -0.12, -0.11))
    tone(ellipse(0.0, -0.42, 0.4, 0.16), (0.05, 0.05, 0.05))
    tone(ellipse(0.0, head.chin - 0.17 + 0.6 * mouth.gap, 0.2, 0.1), (0.06, 0.05, 0.05))
    below = mouth.y + mouth.lower + mouth.gap + 0.1
    tone(ellipse(0.0, below, 0.24, 0.06), (-0.14, -0.16, -0.16))
    _beard(field, layer, sitting)
    side_of_nose = [(0.02, 0.0), (0.16, 0.1), (0.2, 0.35), (nose.width + 0.08, 0.72 * nose.length), (0.06, 0.5)]
    tone(np.array(side_of_nose) * (away, 1), (-0.24 * strong, -0.28 * strong, -0.28 * strong))
    tone(np.array(side_of_nose) * (-away, 1) * (0.7, 1), (-0.06, -0.07, -0.07))
    field.add(layer, 0.055 * view.scale)


def _beard(field: SoftField, layer: np.ndarray, sitting: Sitting) -> None:
    """Stubble to full beard: the jaw darkened towards the hair's colour, the mouth spared."""
    traits, view = sitting.traits, sitting.view
    head, mouth = traits.head, traits.mouth
    skin, hair = np.array(head.skin), np.array(traits.brows.rgb)
    toward = np.minimum((hair - skin) / skin, 0)
    chin = head.chin + 0.7 * mouth.gap
    if traits.beard:
        cheek = [(-1.15, 0.35), (-0.95, 0.75), (-0.62, 1.0), (-0.4, 1.22)]
        inner = smooth([*cheek, (0.0, mouth.y + mouth.lower + mouth.gap + 0.1), *[(-x, y) for x, y in cheek[::-1]]])
        jaw = [(1.3, 1.2), (0.7, chin + 0.2), (-0.7, chin + 0.2), (-1.3, 1.2)]
        rgb = toward * traits.beard * 0.8
        field.fill(layer, view.front(np.vstack([inner, jaw])), (rgb[0], rgb[1], rgb[2]))
    if traits.moustache:
        curves = lips(mouth)["a"]
        rgb = toward * traits.moustache * 0.9
        above = smooth([(mouth.width + 0.08, mouth.y + 0.05), (0.25, mouth.y - 0.22), (0.0, mouth.y - 0.26)], 4)
        upper = np.vstack([above, above[::-1] * (-1, 1)])
        field.fill(layer, view.front(np.vstack([curves, upper])), (rgb[0], rgb[1], rgb[2]))


def _narrow_tones(field: SoftField, sitting: Sitting) -> None:
    traits, view = sitting.traits, sitting.view
    nose, eyes, mouth, head = traits.nose, traits.eyes, traits.mouth, traits.head
    layer = field.layer()
    outline, lift = nose_outline(nose)
    on_nose = view.front(outline, lift)
    half = len(outline) // 2
    # Shadow under the tip, contours of the wings, folds towards the mouth.
    base = nose_outline(nose)[0][half - 8 : half + 9]
    under = np.vstack([moved(base, 0, -0.04), moved(base[::-1], 0, 0.05)])
    field.fill(layer, view.front(under, 0.14), (-0.26, -0.31, -0.3))
    wings = [on_nose[half - 16 : half - 3], on_nose[half + 4 : half + 17]]
    field.stroke(layer, wings, (-0.3, -0.36, -0.36), 1)
    fold = -(0.04 + 0.1 * head.age + 0.6 * max(0.0, mouth.smile - 0.03))
    for side in (-1, 1):
        line = smooth([(nose.width + 0.02, 0.6), (nose.width + 0.16, 0.75), (mouth.width + 0.13, mouth.y - 0.06)], 4)
        field.stroke(layer, [view.front(line * (side, 1))], (fold, fold * 1.2, fold * 1.2), 2)
        x, y = eye_centre(eyes, side)
        bag = smooth([(x - 0.19, y + 0.1), (x, y + 0.2), (x + 0.19, y + 0.1)], 4)
        field.stroke(layer, [view.front(bag)], (-0.03 - 0.08 * head.age,) * 3, 2)
        if eyes.shadow is not None:
            paint = (np.array(eyes.shadow) - np.array(head.skin)) / np.array(head.skin) * 0.42
            lid = ellipse(x, y - 0.09, 0.24, 0.1)
            field.fill(layer, view.front(lid), (paint[0], paint[1], paint[2]))
    philtrum = np.array([(-0.05, 0.8 * nose.length), (0.05, 0.8 * nose.length), (0.06, mouth.y - 0.12)])
    field.fill(layer, view.front(np.vstack([philtrum, [(-0.06, mouth.y - 0.12)]])), (-0.05, -0.06, -0.06))
    x, y, rise = nose_tip(nose)
    shift = 0.05 if sitting.light.x > 0 else -0.05
    ridge = moved(np.array([(-0.035, 0.02), (0.035, 0.02), (0.045, 0.5), (-0.045, 0.5)]), shift * 0.6, 0)
    # A gleam reflects the light, not the skin: on dark skin it is many times the skin's colour.
    gleam = 0.12 * min(3.0, 190 / (sum(head.skin) / 3))
    field.fill(layer, view.front(ridge, 0.22), (0.5 * gleam,) * 3)
    field.fill(layer, view.front(ellipse(x + shift, y - 0.03, 0.07, 0.05), rise), (gleam,) * 3)
    field.add(layer, 0.02 * view.scale)


def skin_patch(box: Box, rgb: Rgb, shadows: list[tuple[np.ndarray, float]], sigma: float) -> np.ndarray:
    """Plain skin (neck, ears) of one colour with soft shadows: polygons in pixels and what they take away."""
    field = SoftField(box, 8)
    layer = field.layer()
    for points, amount in shadows:
        field.fill(layer, points, (-amount, -amount * 1.1, -amount * 1.1))
    field.add(layer, sigma)
    return field.colours(rgb)
