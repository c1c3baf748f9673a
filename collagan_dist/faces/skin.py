"""Painting of the skin: light on the head, cheeks, shadows, folds and beard, in one soft colour field."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from collagan_dist.faces.canvas import BlurredField, Box, Canvas, Projection, box_around
from collagan_dist.faces.curves import ellipse, eye_centre, face_outline, lips, nose_outline, nose_tip, shifted, spline
from collagan_dist.faces.traits import Rgb, Traits, brighten

FACE_CLASS = 1  # of types.CLASSES


@dataclass(frozen=True)
class Light:
    """Light from the direction (x, y, 1) on a head that is an ellipsoid; `contrast` is the share of directed light."""

    x: float
    y: float
    contrast: float

    def factor(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Return the brightness at points of the face; 1 leaves a colour as it is."""
        # The normal of an ellipsoid with half axes 1.32 and 1.85 around (0, 0.25), a little larger than the face.
        nx, ny = np.clip(np.asarray(x) / 1.32, -1, 1), np.clip((np.asarray(y) - 0.25) / 1.85, -1, 1)
        # Never quite 0: hair and ears lie outside of it.
        nz = np.sqrt(np.maximum(0.06, 1 - nx * nx - ny * ny))
        length = float(np.sqrt(1 + self.x**2 + self.y**2))
        # 0.86 is the cosine at which the brightness is 1.
        return 1.0 + self.contrast * ((nx * self.x + ny * self.y + nz) / length - 0.86)


@dataclass(frozen=True)
class PaintContext:
    """What every painting function needs: traits, projection and canvas."""

    traits: Traits
    view: Projection
    canvas: Canvas

    def light(self, part: str = "") -> Light:
        """Return the light on a part of the face, one of LIT_PARTS; by default that of the scene."""
        scene = self.traits.scene
        return Light(*self.traits.lights.get(part, (*scene.light, scene.contrast)))

    def shade(self, rgb: Rgb, x: float, y: float, part: str = "") -> Rgb:
        """Return a colour under the light at a point of the face."""
        return brighten(rgb, float(self.light(part).factor(x, y)))


def paint_head(context: PaintContext, hair_front: np.ndarray | None) -> None:
    """Paint the skin of the face and its label; `hair_front`, a polygon in pixels, throws a shadow."""
    traits, view = context.traits, context.view
    outline = view.outline(face_outline(traits.head, traits.mouth.gap))
    box = box_around(outline)
    field = BlurredField(box)
    _add_light(field, context)
    _add_wide_tones(field, context, hair_front)
    _add_narrow_tones(field, context)
    context.canvas.paste(field.colours(traits.head.skin), box, outline, FACE_CLASS)


def _add_light(field: BlurredField, context: PaintContext) -> None:
    """Add the light on the head."""
    x, y = field.grid()
    view = context.view
    flat = np.linalg.inv(view.matrix[:, :2])
    centre = view.points(np.array([[0.0, 0.3, 0.6]]))[0]
    dx, dy = x - centre[0], y - centre[1]
    factor = context.light().factor(flat[0, 0] * dx + flat[0, 1] * dy, flat[1, 0] * dx + flat[1, 1] * dy + 0.3)
    # Red changes least: skin in the shade is warmer.
    shade = factor.astype(np.float32)[..., None] - 1
    field.factor += shade * np.array([0.86, 1.0, 1.1], np.float32)


def _add_wide_tones(field: BlurredField, context: PaintContext, hair_front: np.ndarray | None) -> None:
    """Add what is blurred widely: cheeks, eye sockets, forehead, chin, the shadows of hair, lip and nose, the beard."""
    traits, view = context.traits, context.view
    head, eyes, mouth, nose = traits.head, traits.eyes, traits.mouth, traits.nose
    layer = field.layer()

    def tone(points: np.ndarray, rgb: Rgb) -> None:
        field.fill(layer, view.front(points), rgb)

    # The shadow of the nose falls to the side away from the light.
    light = context.light("nose")
    away = -1 if light.x > 0 else 1
    strong = 0.5 + abs(light.x)
    if hair_front is not None:
        field.fill(layer, hair_front + np.array([0.0, 0.07 * view.scale]), (-0.2, -0.22, -0.22))
    blush = 0.02 + 0.045 * head.blush
    for side in (-1, 1):
        tone(ellipse(side * 0.6, 0.62, 0.3, 0.24), (blush, -blush, -0.8 * blush))
        x, y = eye_centre(eyes[side], side)
        tone(ellipse(x - 0.02 * side, y - 0.04, 0.29, 0.19), (-0.1, -0.12, -0.11))
    tone(ellipse(0.0, -0.42, 0.4, 0.16), (0.05, 0.05, 0.05))
    tone(ellipse(0.0, head.chin - 0.17 + 0.6 * mouth.gap, 0.2, 0.1), (0.06, 0.05, 0.05))
    below = mouth.y + mouth.lower + mouth.gap + 0.1
    tone(ellipse(0.0, below, 0.24, 0.06), (-0.14, -0.16, -0.16))
    _add_beard(field, layer, context)
    side_of_nose = [(0.02, 0.0), (0.16, 0.1), (0.2, 0.35), (nose.width + 0.08, 0.72 * nose.length), (0.06, 0.5)]
    tone(np.array(side_of_nose) * (away, 1), (-0.24 * strong, -0.28 * strong, -0.28 * strong))
    tone(np.array(side_of_nose) * (-away, 1) * (0.7, 1), (-0.06, -0.07, -0.07))
    field.add(layer, 0.055 * view.scale)


def _add_beard(field: BlurredField, layer: np.ndarray, context: PaintContext) -> None:
    """Add beard and moustache: skin that is darkened towards the hair's colour."""
    traits, view = context.traits, context.view
    head, mouth = traits.head, traits.mouth
    skin, hair = np.array(head.skin), np.array(traits.beard_rgb)
    # Changes of the factor that would give the hair's colour; blond hair on dark skin does not lighten it.
    toward = np.minimum((hair - skin) / skin, 0)
    chin = head.chin + 0.7 * mouth.gap
    if traits.beard:
        cheek = [(-1.15, 0.35), (-0.95, 0.75), (-0.62, 1.0), (-0.4, 1.22)]
        inner = spline([*cheek, (0.0, mouth.y + mouth.lower + mouth.gap + 0.1), *[(-x, y) for x, y in cheek[::-1]]])
        jaw = [(1.3, 1.2), (0.7, chin + 0.2), (-0.7, chin + 0.2), (-1.3, 1.2)]
        rgb = toward * traits.beard * 0.8
        field.fill(layer, view.front(np.vstack([inner, jaw])), (rgb[0], rgb[1], rgb[2]))
    if traits.moustache:
        curves = lips(mouth)["upper_outer"]
        rgb = toward * traits.moustache * 0.9
        above = spline([(mouth.width + 0.08, mouth.y + 0.05), (0.25, mouth.y - 0.22), (0.0, mouth.y - 0.26)], 4)
        upper = np.vstack([above, above[::-1] * (-1, 1)])
        field.fill(layer, view.front(np.vstack([curves, upper])), (rgb[0], rgb[1], rgb[2]))


def _add_narrow_tones(field: BlurredField, context: PaintContext) -> None:
    """Add what is blurred little: contours of the nose, folds, eye shadow, philtrum, highlights."""
    traits, view = context.traits, context.view
    nose, eyes, mouth, head = traits.nose, traits.eyes, traits.mouth, traits.head
    layer = field.layer()
    outline, lift = nose_outline(nose)
    on_nose = view.front(outline, lift)
    half = len(outline) // 2
    # The shadow under the tip, then the contours of the wings.
    base = nose_outline(nose)[0][half - 8 : half + 9]
    under = np.vstack([shifted(base, 0, -0.04), shifted(base[::-1], 0, 0.05)])
    field.fill(layer, view.front(under, 0.14), (-0.26, -0.31, -0.3))
    wings = [on_nose[half - 16 : half - 3], on_nose[half + 4 : half + 17]]
    field.stroke(layer, wings, (-0.3, -0.36, -0.36), 1)
    fold = -(0.04 + 0.1 * head.age + 0.6 * max(0.0, mouth.smile - 0.03))
    for side in (-1, 1):
        line = spline([(nose.width + 0.02, 0.6), (nose.width + 0.16, 0.75), (mouth.width + 0.13, mouth.y - 0.06)], 4)
        field.stroke(layer, [view.front(line * (side, 1))], (fold, fold * 1.2, fold * 1.2), 2)
        x, y = eye_centre(eyes[side], side)
        bag = spline([(x - 0.19, y + 0.1), (x, y + 0.2), (x + 0.19, y + 0.1)], 4)
        field.stroke(layer, [view.front(bag)], (-0.03 - 0.08 * head.age,) * 3, 2)
        shadow = eyes[side].shadow
        if shadow is not None:
            paint = (np.array(shadow) - np.array(head.skin)) / np.array(head.skin) * 0.42
            lid = ellipse(x, y - 0.09, 0.24, 0.1)
            field.fill(layer, view.front(lid), (paint[0], paint[1], paint[2]))
    philtrum = np.array([(-0.05, 0.8 * nose.length), (0.05, 0.8 * nose.length), (0.06, mouth.y - 0.12)])
    field.fill(layer, view.front(np.vstack([philtrum, [(-0.06, mouth.y - 0.12)]])), (-0.05, -0.06, -0.06))
    x, y, rise = nose_tip(nose)
    shift = 0.05 if context.light("nose").x > 0 else -0.05
    ridge = shifted(np.array([(-0.035, 0.02), (0.035, 0.02), (0.045, 0.5), (-0.045, 0.5)]), shift * 0.6, 0)
    # A highlight reflects the light, not the skin: on dark skin it is several times as bright as the skin.
    highlight = 0.12 * min(3.0, 190 / (sum(head.skin) / 3))
    field.fill(layer, view.front(ridge, 0.22), (0.5 * highlight,) * 3)
    field.fill(layer, view.front(ellipse(x + shift, y - 0.03, 0.07, 0.05), rise), (highlight,) * 3)
    field.add(layer, 0.02 * view.scale)


def skin_patch(box: Box, rgb: Rgb, shadows: list[tuple[np.ndarray, float]], sigma: float) -> np.ndarray:
    """Return a surface of one colour (neck, ears, cloth) with soft shadows: polygons in pixels and what they take away."""
    field = BlurredField(box, 8)
    layer = field.layer()
    for points, amount in shadows:
        field.fill(layer, points, (-amount, -amount * 1.1, -amount * 1.1))
    field.add(layer, sigma)
    return field.colours(rgb)
