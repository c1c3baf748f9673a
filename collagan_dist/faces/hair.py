"""Hair: the outlines of the styles, and their painting with light, shadow and strands."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from collagan_dist.faces.canvas import BlurredField, Projection, box_around
from collagan_dist.faces.curves import ellipse, resample, shifted, spline
from collagan_dist.faces.skin import PaintContext
from collagan_dist.faces.traits import Hair, Head, Traits, brighten

HAIR_CLASS = 10
_STRAND_COUNT = 40
LONG_STYLES = ("long", "long_fringe")


@dataclass(frozen=True)
class HairShape:
    """Outlines in pixels: the outer one and the hairline, (N, 2) from left to right, and polygons behind the head."""

    outer: np.ndarray | None
    inner: np.ndarray | None
    behind: list[np.ndarray]

    @property
    def front(self) -> np.ndarray | None:
        """The polygon in front of the face, or None for bald heads."""
        if self.outer is None or self.inner is None:
            return None
        return np.vstack([self.outer, self.inner[::-1]])


def shape_hair(traits: Traits, view: Projection) -> HairShape:
    """Return the outlines of a head's hair in pixels."""
    hair, head = traits.hair, traits.head
    if hair.style == "bald":
        return HairShape(None, None, [])
    inner, behind = _hairline(hair, head), []
    end = hair.length if hair.style in LONG_STYLES else 0.22
    outer = _outer_outline(hair, head, end)
    if hair.style in LONG_STYLES:
        # The inner edge of hair that hangs beside the face, from its end up to the hairline.
        side = np.array([(0.9, hair.length), (0.93, 1.5), (0.95, 0.9), (0.95, 0.45)]) * (head.width, 1)
        inner = np.vstack([spline(side * (-1, 1)), inner[3:-3], spline(side)[::-1]])
        behind.append(view.outline(outer, -0.2))
    if hair.style == "bun":
        behind.append(view.outline(ellipse(0, head.top - 0.3, 0.42 + hair.volume, 0.42 + hair.volume / 2), -0.4))
    return HairShape(view.outline(outer, 0.08), _on_skull(inner, head, view), behind)


def _outer_outline(hair: Hair, head: Head, end: float) -> np.ndarray:
    """Return the outer outline in face units, from the left end over the crown to the right end."""
    angle = np.linspace(np.pi, 0, 41)
    # How far the hair stands off the head at the sides and above it: combed styles lie closer.
    aside = hair.volume * (0.45 if hair.style in ("short", "swept", "bun", "parted") else 0.75)
    above = hair.volume * (0.5 if hair.style == "bun" else 1.0)
    round_ = np.sin(angle).clip(0, 1)
    if hair.style not in LONG_STYLES:
        # Short hair becomes thinner towards the ears.
        fade = 0.03 + (aside - 0.03) * round_**0.6
        aside = 0.03
    else:
        fade = np.full(41, aside)
    x = (head.width + fade) * np.cos(angle)
    y = 0.1 - (0.1 - head.top + above) * round_**0.84
    arc = np.column_stack([x, y])
    reach = head.width + (aside + 0.1 if hair.style in LONG_STYLES else -0.03)
    edge = -head.width - aside
    drop = spline([(-reach, end), (edge - 0.03, 0.1 + 0.45 * (end - 0.1)), (edge, 0.1)], 8)
    outer = np.vstack([drop[:-1], arc, drop[-2::-1] * (-1, 1)])
    return _with_waves(outer, hair)


def _with_waves(outer: np.ndarray, hair: Hair) -> np.ndarray:
    """Add curls or waves to the outline."""
    if hair.style == "curly":
        outer = resample(outer, 150)  # enough points for 13 bulges
        bump = np.abs(np.sin(np.linspace(0, 13 * np.pi, 150) + hair.phase)) * 0.09 + 0.08
        return outer + outer / np.linalg.norm(outer, axis=1, keepdims=True) * bump[:, None]
    wave = hair.wave * np.sin(5 * outer[:, 1] + hair.phase) * np.clip(outer[:, 1], 0, 1)
    return outer + np.column_stack([np.sign(outer[:, 0]) * wave, np.zeros(len(outer))])


def _hairline(hair: Hair, head: Head) -> np.ndarray:
    """Return the boundary between hair and face in face units, from left to right."""
    wide, line = head.width, hair.line
    # Points of the right half; most styles are symmetric.
    burn, temple = (0.92 * wide, 0.22), (0.9 * wide, -0.2)
    corner = (0.76 * wide, line * 0.72)
    if hair.style in ("parted", "long"):
        points = [(-burn[0], burn[1]), (-temple[0], temple[1]), (-0.74 * wide, -0.5), (-0.42, line - 0.1)]
        points += [(-0.1, line + 0.1), (0.32, line + 0.24), (0.72 * wide, -0.32), (0.93 * wide, -0.02), burn]
        # Drawn for a parting on the left; the other side is its mirror image.
        return spline(np.array(points)) if hair.side < 0 else spline(np.array(points) * (-1, 1))[::-1]
    if hair.style in ("fringe", "long_fringe"):
        low = line * 0.35 - 0.08
        half = [burn, (0.95 * wide, -0.05), (0.84 * wide, low + 0.12), (0.5, low + 0.02), (0.17, low)]
    elif hair.style == "centre":
        half = [burn, (0.96 * wide, -0.05), (0.8 * wide, -0.36), (0.36, line + 0.04), (0.06, line - 0.14)]
    elif hair.style in ("swept", "bun"):
        half = [burn, temple, (0.78 * wide, line * 0.85), (0.42, line - 0.06), (0.1, line + 0.02)]
    else:
        half = [burn, temple, corner, (0.5, line), (0.17, line - 0.02)]
    left = np.array(half) * (-1, 1)
    points_ = spline(np.vstack([left, np.array(half)[::-1]]))
    if hair.style == "curly":
        points_ = points_ + np.column_stack([0 * points_[:, 0], 0.03 * np.sin(24 * points_[:, 0] + hair.phase)])
    return points_


def _on_skull(xy_N2: np.ndarray, head: Head, view: Projection) -> np.ndarray:
    """Return pixels of points on the front of the skull: as deep as the face in the middle, on the silhouette at the sides."""
    side = np.clip(np.abs(xy_N2[:, 0]) / head.width, 0, 1) ** 2
    x = xy_N2[:, 0] * (1 + (1 / np.cos(view.yaw) - 1) * side)
    return view.points(np.column_stack([x, xy_N2[:, 1], 0.15 + 0.7 * np.sqrt(1 - side)]))


def paint_behind(context: PaintContext, shape: HairShape) -> None:
    """Paint the hair that the head covers; to be called before the head is painted."""
    hair = context.traits.hair
    if shape.outer is not None:
        # The scalp: a turned head would otherwise show the backdrop between hair and face.
        context.canvas.fill(shape.outer, brighten(hair.rgb, 0.6), HAIR_CLASS)
    for points in shape.behind:
        _paint_hair(context, points, _strands_behind(points, hair), 0.72 if hair.style in LONG_STYLES else 0.9)


def paint_front(context: PaintContext, shape: HairShape) -> None:
    """Paint the hair that covers the head; to be called last."""
    if shape.front is None or shape.outer is None or shape.inner is None:
        return
    hair = context.traits.hair
    outer, inner = resample(shape.outer, 60), resample(shape.inner, 60)
    if hair.style in ("short", "fringe", "swept", "bun"):
        # In these styles strands run from the hairline back to the crown, elsewhere along the hairline.
        outer, inner = resample(shape.outer, _STRAND_COUNT), resample(shape.inner, _STRAND_COUNT)
        lean = np.roll(outer, hair.side, axis=0) if hair.style != "fringe" else outer
        steps = np.linspace(0, 1, 5)[None, :, None]
        lines = list((inner[:, None] + (lean - inner)[:, None] * steps)[2:-2])
    else:
        lines = [_strand_between(inner, outer, share, hair) for share in np.linspace(0.03, 0.97, _STRAND_COUNT // 2)]
    _paint_hair(context, shape.front, lines, 1.0)


def _strand_between(inner: np.ndarray, outer: np.ndarray, share: float, hair: Hair) -> np.ndarray:
    """Return a strand between the hairline and the outline, `share` of the way."""
    at = np.linspace(0, 1, len(inner))
    curl, turns = (0.07, 60.0) if hair.style == "curly" else (0.02, 7.0)
    # Strands that are exactly parallel look like stripes.
    wander = share + curl * np.sin(turns * at + 40 * share + hair.phase)
    return inner + (outer - inner) * wander[:, None]


def _strands_behind(points_N2: np.ndarray, hair: Hair) -> list[np.ndarray]:
    """Return strands that follow both sides of a polygon down from its centre."""
    centre = points_N2.mean(0)
    return [centre + (points_N2 - centre) * (share, 0.6 + 0.4 * share) for share in np.linspace(0.15, 0.97, 14)]


def _paint_hair(context: PaintContext, points: np.ndarray, lines: list[np.ndarray], bright: float) -> None:
    hair, view = context.traits.hair, context.view
    box = box_around(points)
    if box[2] <= box[0] or box[3] <= box[1]:
        return
    field = BlurredField(box, 8)
    layer = field.layer()
    # A highlight on the crown, towards the light, and darkness around the face.
    towards = view.points(np.array([[context.light().x * 0.6, -0.85, 0.3]]))[0]
    field.fill(layer, shifted(ellipse(0, 0, 0.62 * view.scale, 0.26 * view.scale), *towards), (0.34, 0.34, 0.34))
    field.fill(layer, view.outline(ellipse(0, 0.5, 1.02, 1.0)), (-0.22, -0.22, -0.22))
    field.add(layer, 0.06 * view.scale)
    patch = context.canvas.crop(box)
    patch.image[:] = field.colours(brighten(hair.rgb, bright))
    tones = ((0, 0.86), (1, 1.1), (2, 0.93), (3, 1.18), (4, 0.8))
    for start, share in tones:
        patch.stroke(lines[start :: len(tones)], brighten(hair.rgb, bright * share), 1.0)
    # Blurred: single hairs would be noise to a network, and JPEG would remove them anyway.
    context.canvas.paste(cv2.blur(patch.image, (5, 5)), box, points, HAIR_CLASS)
