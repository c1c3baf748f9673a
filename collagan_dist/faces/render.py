"""Drawing of one face from its traits: picture, label map and exact landmarks."""

from __future__ import annotations

import numpy as np

from collagan_dist.faces.canvas import HEIGHT, WIDTH, Canvas, Projection, box_around, fit_projection, on_surface
from collagan_dist.faces.curves import ellipse, eye_centre, face_outline, lips, nose_tip, spline
from collagan_dist.faces.features import paint_features
from collagan_dist.faces.hair import LONG_STYLES, paint_behind, paint_front, shape_hair
from collagan_dist.faces.sampling import sample_traits
from collagan_dist.faces.skin import PaintContext, paint_head, skin_patch
from collagan_dist.faces.traits import Scene, Traits, brighten


def draw_face(seed: int, number: int, coupling: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw face `number` of a seed: picture (440, 360, 3) uint8 RGB, labels (440, 360) uint8, landmarks (5, 2) float64.

    `coupling` is that of `sample_traits`.
    """
    return draw_traits(sample_traits(seed, number, coupling))


def draw_traits(traits: Traits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return picture, labels and landmarks of given traits, as `draw_face` does."""
    corners = landmark_points(traits)
    view = fit_projection(traits.pose, corners)
    canvas = Canvas.on_backdrop(paint_backdrop(traits.scene))
    context = PaintContext(traits, view, canvas)
    hair = shape_hair(traits, view)
    # From back to front: what is painted later covers what was painted before, in the picture and in the labels.
    paint_behind(context, hair)
    _paint_body(context)
    _paint_ears(context)
    paint_head(context, hair.front)
    paint_features(context)
    paint_front(context, hair)
    picture, labels = canvas.downsampled()
    return picture, labels, view.points(corners)


def landmark_points(traits: Traits) -> np.ndarray:
    """Return (5, 3) points in face units: left eye, right eye, nose tip, left and right corner of the mouth."""
    curve = lips(traits.mouth)["upper_inner"]
    x, y, rise = nose_tip(traits.nose)
    eyes = [eye_centre(traits.eyes[side], side) for side in (-1, 1)]
    flat = on_surface(np.array([*eyes, (x, y), curve[0], curve[-1]]))
    # The nose and the lips stand out of the face's surface by what features.py lifts them.
    flat[:, 2] += (0.0, 0.0, rise, 0.04, 0.04)
    return flat


def paint_backdrop(scene: Scene) -> np.ndarray:
    """Return (55, 45, 3) uint8: a gradient with soft blobs, a glow or pale stripes."""
    # An eighth of the picture's size: enlarging it makes it smooth, as a backdrop out of focus.
    rows, columns = HEIGHT // 8, WIDTH // 8
    x, y = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    base, near, far = (np.array(colour, np.float32) for colour in scene.colours)
    number = scene.numbers
    turn = 6.283 * number[0]
    ramp = 0.5 + 0.6 * (np.cos(turn) * (x - 0.5) + np.sin(turn) * (y - 0.5))
    picture = base + (near - base) * ramp[..., None]
    if scene.pattern in ("blobs", "glow"):
        for index in range(4 if scene.pattern == "blobs" else 1):
            cx, cy, size, strength = number[1 + 4 * index : 5 + 4 * index]
            spread = 0.06 + 0.14 * size if scene.pattern == "blobs" else 0.35
            hump = np.exp(-((x - cx) ** 2 + ((y - cy) * 1.2) ** 2) / (2 * spread**2))
            picture += (far - base) * (hump * (0.3 + 0.5 * strength))[..., None]
    elif scene.pattern == "stripes":
        wave = np.sin((np.cos(turn) * x + np.sin(turn) * y) * (18 + 26 * number[1]) + 6 * number[2])
        picture += (far - base) * (0.16 * wave)[..., None]
    # Neither black nor white, as in photographs.
    return np.clip(picture, 12, 245).astype(np.uint8)


def _body_points(view: Projection, roll: float, xy_N2: np.ndarray) -> np.ndarray:
    """Return the pixels of points of the body, which stands below the head and leans a third of the head's roll."""
    lean = roll / 3
    turn = np.array([[np.cos(lean), -np.sin(lean)], [np.sin(lean), np.cos(lean)]])
    # The body neither turns nor nods with the head: only the point where the neck meets the head does.
    joint = view.points(np.array([[0.0, 1.0, -0.2]]))[0]
    return (xy_N2 - (0, 1.0)) @ turn.T * view.scale + joint


def _paint_body(context: PaintContext) -> None:
    traits, view, canvas = context.traits, context.view, context.canvas
    roll = traits.pose.roll
    # Neck and shoulders as skin first, then the cloth up to its neckline. Both have the class background.
    wide = 0.54 * traits.head.width
    neck = [(wide * 1.05, 0.6), (wide, 1.6), (wide * 1.1, 2.1)]
    half = np.array([*neck, (1.5, 2.5), (2.1, 2.85), (2.6, 4.0), (2.6, 8)])
    outline = np.vstack([half[::-1] * (-1, 1), half])
    trunk = _body_points(view, roll, spline(outline, 4))
    box = box_around(trunk)
    chin = view.outline(face_outline(traits.head, traits.mouth.gap)) + np.array([0.0, 0.3 * view.scale])
    rgb = context.shade(brighten(traits.head.skin, 0.9), 0.0, 1.4)
    canvas.paste(skin_patch(box, rgb, [(chin, 0.34)], 0.035 * view.scale), box, trunk, 0)
    cloth = {"round": [(0.3, 2.72), (0.0, 2.8)], "v": [(0.35, 2.75), (0.0, 3.3)], "collar": [(0.34, 2.55), (0.0, 2.75)]}
    dip = cloth.get(traits.scene.neckline, [(0.4, 2.12), (0.0, 2.2)])
    top = 2.38 if traits.scene.neckline != "high" else 2.0
    right = np.array([(wide * 1.2, top), *dip])
    seam = np.vstack([right[:-1] * (-1, 1), right[::-1]])
    # A v keeps its corner.
    edge = spline(seam, 5) if traits.scene.neckline != "v" else seam
    shoulder = np.array([(wide * 1.2, top), (1.52, 2.5), (2.15, 2.86), (2.7, 4.0), (2.7, 8)])
    coat = np.vstack([edge, spline(shoulder, 3), spline(shoulder, 3)[::-1] * (-1, 1)])
    pixels = _body_points(view, roll, coat)
    box = box_around(pixels)
    if box[2] > box[0] and box[3] > box[1]:
        folds = [(_body_points(view, roll, ellipse(s * 1.62, 4.4, 0.1, 1.2)), 0.2) for s in (-1, 1)]
        canvas.paste(skin_patch(box, traits.scene.cloth, folds, 0.05 * view.scale), box, pixels, 0)
    canvas.stroke([_body_points(view, roll, edge)], brighten(traits.scene.cloth, 0.75), 1.0)


def _paint_ears(context: PaintContext) -> None:
    """Paint both ears, of class background; under long hair none shows."""
    traits, view = context.traits, context.view
    if traits.hair.style in LONG_STYLES:
        return
    wide = traits.head.width
    for side in (-1, 1):
        rgb = context.shade(brighten(traits.head.skin, 0.9), side * 0.9, 0.3)
        ear = view.outline(ellipse(side * (wide + 0.01), 0.28, 0.17, 0.3), -0.1)
        inside = view.outline(ellipse(side * (wide + 0.06), 0.28, 0.07, 0.18), -0.1)
        box = box_around(ear)
        context.canvas.paste(skin_patch(box, rgb, [(inside, 0.3)], 1.0), box, ear, 0)
