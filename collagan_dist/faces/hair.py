"""Hair: outlines of the styles, tone, and strands that follow them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from collagan_dist.faces.canvas import Projection, SoftField, box_around
from collagan_dist.faces.curves import along, ellipse, moved, smooth
from collagan_dist.faces.skin import Sitting
from collagan_dist.faces.traits import Hair, Head, Traits, lit

HAIR = 10
_STRANDS = 40
LONG = ("long", "long_fringe")


@dataclass(frozen=True)
class HairShape:
    """In pixels: the outer outline and the hairline, left to right (N, 2), and what hangs or stands behind the head."""

    outer: np.ndarray | None
    inner: np.ndarray | None
    behind: list[np.ndarray]

    @property
    def front(self) -> np.ndarray | None:
        """The polygon in front of the face."""
        if self.outer is None or self.inner is None:
            return None
        return np.vstack([self.outer, self.inner[::-1]])


def shape_hair(traits: Traits, view: Projection) -> HairShape:
    hair, head = traits.hair, traits.head
    if hair.style == "bald":
        return HairShape(None, None, [])
    inner = _hairline(hair, head)
    end = hair.length if hair.style in LONG else 0.22
    outer = _outer(hair, head, end)
    if hair.style in LONG:
        side = np.array([(0.9, hair.length), (0.93, 1.5), (0.95, 0.9), (0.95, 0.45)]) * (head.width, 1)
        inner = np.vstack([smooth(side * (-1, 1)), inner[3:-3], smooth(side)[::-1]])
    behind = []
    if hair.style in LONG:
        behind.append(view.outline(outer, -0.2))
    if hair.style == "bun":
        behind.append(view.outline(ellipse(0, head.top - 0.3, 0.42 + hair.volume, 0.42 + hair.volume / 2), -0.4))
    return HairShape(view.outline(outer, 0.08), _dome(inner, head, view), behind)


def _outer(hair: Hair, head: Head, end: float) -> np.ndarray:
    """From the left end over the crown to the right end."""
    angle = np.linspace(np.pi, 0, 41)
    aside = hair.volume * (0.45 if hair.style in ("short", "swept", "bun", "parted") else 0.75)
    above = hair.volume * (0.5 if hair.style == "bun" else 1.0)
    round_ = np.sin(angle).clip(0, 1)
    if hair.style not in LONG:
        # Short hair thins out towards the ears.
        fade = 0.03 + (aside - 0.03) * round_**0.6
        aside = 0.03
    else:
        fade = np.full(41, aside)
    x = (head.width + fade) * np.cos(angle)
    y = 0.1 - (0.1 - head.top + above) * round_**0.84
    arc = np.column_stack([x, y])
    reach = head.width + (aside + 0.1 if hair.style in LONG else -0.03)
    edge = -head.width - aside
    drop = smooth([(-reach, end), (edge - 0.03, 0.1 + 0.45 * (end - 0.1)), (edge, 0.1)], 8)
    outer = np.vstack([drop[:-1], arc, drop[-2::-1] * (-1, 1)])
    return _curled(outer, hair)


def _curled(outer: np.ndarray, hair: Hair) -> np.ndarray:
    """Curls bulge the outline, waves bend it."""
    if hair.style == "curly":
        outer = along(outer, 150)
        bump = np.abs(np.sin(np.linspace(0, 13 * np.pi, 150) + hair.phase)) * 0.09 + 0.08
        return outer + outer / np.linalg.norm(outer, axis=1, keepdims=True) * bump[:, None]
    wave = hair.wave * np.sin(5 * outer[:, 1] + hair.phase) * np.clip(outer[:, 1], 0, 1)
    return outer + np.column_stack([np.sign(outer[:, 0]) * wave, np.zeros(len(outer))])


def _hairline(hair: Hair, head: Head) -> np.ndarray:
    """The boundary between hair and face, left to right, for a parting on the left or the right."""
    wide, line = head.width, hair.line
    burn, temple = (0.92 * wide, 0.22), (0.9 * wide, -0.2)
    corner = (0.76 * wide, line * 0.72)
    if hair.style in ("parted", "long"):
        points = [(-burn[0], burn[1]), (-temple[0], temple[1]), (-0.74 * wide, -0.5), (-0.42, line - 0.1)]
        points += [(-0.1, line + 0.1), (0.32, line + 0.24), (0.72 * wide, -0.32), (0.93 * wide, -0.02), burn]
        return smooth(np.array(points)) if hair.side < 0 else smooth(np.array(points) * (-1, 1))[::-1]
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
    points_ = smooth(np.vstack([left, np.array(half)[::-1]]))
    if hair.style == "curly":
        points_ = points_ + np.column_stack([0 * points_[:, 0], 0.03 * np.sin(24 * points_[:, 0] + hair.phase)])
    return points_


def _dome(xy_N2: np.ndarray, head: Head, view: Projection) -> np.ndarray:
    """Points on the front of the skull: in the middle as deep as the face, at the sides on the silhouette."""
    side = np.clip(np.abs(xy_N2[:, 0]) / head.width, 0, 1) ** 2
    x = xy_N2[:, 0] * (1 + (1 / np.cos(view.yaw) - 1) * side)
    return view.points(np.column_stack([x, xy_N2[:, 1], 0.15 + 0.7 * np.sqrt(1 - side)]))


def paint_behind(sitting: Sitting, shape: HairShape) -> None:
    hair = sitting.traits.hair
    if shape.outer is not None:
        # The scalp: turning the head must not open a gap between hair and face.
        sitting.canvas.fill(shape.outer, lit(hair.rgb, 0.6), HAIR)
    for points in shape.behind:
        _paint_mass(sitting, points, _fan(points, hair), 0.72 if hair.style in LONG else 0.9)


def paint_front(sitting: Sitting, shape: HairShape) -> None:
    if shape.front is None or shape.outer is None or shape.inner is None:
        return
    hair = sitting.traits.hair
    outer, inner = along(shape.outer, 60), along(shape.inner, 60)
    if hair.style in ("short", "fringe", "swept", "bun"):
        # Strands from the hairline back to the crown.
        outer, inner = along(shape.outer, _STRANDS), along(shape.inner, _STRANDS)
        lean = np.roll(outer, hair.side, axis=0) if hair.style != "fringe" else outer
        steps = np.linspace(0, 1, 5)[None, :, None]
        lines = list((inner[:, None] + (lean - inner)[:, None] * steps)[2:-2])
    else:
        lines = [_strand(inner, outer, share, hair) for share in np.linspace(0.03, 0.97, _STRANDS // 2)]
    _paint_mass(sitting, shape.front, lines, 1.0)


def _strand(inner: np.ndarray, outer: np.ndarray, share: float, hair: Hair) -> np.ndarray:
    """A line between the hairline and the outline; no two run quite parallel, curls wind."""
    at = np.linspace(0, 1, len(inner))
    curl, turns = (0.07, 60.0) if hair.style == "curly" else (0.02, 7.0)
    wander = share + curl * np.sin(turns * at + 40 * share + hair.phase)
    return inner + (outer - inner) * wander[:, None]


def _fan(points_N2: np.ndarray, hair: Hair) -> list[np.ndarray]:
    """Strands that follow the left and right side of a mass down from its middle."""
    centre = points_N2.mean(0)
    return [centre + (points_N2 - centre) * (share, 0.6 + 0.4 * share) for share in np.linspace(0.15, 0.97, 14)]


def _paint_mass(sitting: Sitting, points: np.ndarray, lines: list[np.ndarray], bright: float) -> None:
    hair, view = sitting.traits.hair, sitting.view
    box = box_around(points)
    if box[2] <= box[0] or box[3] <= box[1]:
        return
    field = SoftField(box, 8)
    layer = field.layer()
    towards = view.points(np.array([[sitting.light.x * 0.6, -0.85, 0.3]]))[0]
    field.fill(layer, moved(ellipse(0, 0, 0.62 * view.scale, 0.26 * view.scale), *towards), (0.34, 0.34, 0.34))
    field.fill(layer, view.outline(ellipse(0, 0.5, 1.02, 1.0)), (-0.22, -0.22, -0.22))
    field.add(layer, 0.06 * view.scale)
    patch = sitting.canvas.cut(box)
    patch.image[:] = field.colours(lit(hair.rgb, bright))
    tones = ((0, 0.86), (1, 1.1), (2, 0.93), (3, 1.18), (4, 0.8))
    for start, share in tones:
        patch.stroke(lines[start :: len(tones)], lit(hair.rgb, bright * share), 1.0)
    # Blurred strands: single hairs would be noise to a network and vanish in the JPEG anyway.
    sitting.canvas.paste(cv2.blur(patch.image, (5, 5)), box, points, HAIR)
