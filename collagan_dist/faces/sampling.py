"""The traits of one drawn face as a pure function of (seed, number)."""

from __future__ import annotations

import math
from typing import Final, TypeVar

import numpy as np

from collagan_dist.faces.traits import (
    Brows,
    Eyes,
    Glasses,
    Hair,
    Head,
    Mouth,
    Nose,
    Pose,
    Rgb,
    Scene,
    Traits,
    blend,
    lit,
)
from collagan_dist.rng import key64, uniforms

T = TypeVar("T")

_SKIN: Final = (
    (244, 216, 198),
    (238, 202, 178),
    (232, 188, 158),
    (214, 164, 128),
    (190, 136, 98),
    (154, 104, 72),
    (116, 76, 54),
    (78, 51, 39),
)
# (colour, weight on light skin, weight on dark skin)
_HAIR: Final[tuple[tuple[Rgb, float, float], ...]] = (
    ((30, 25, 24), 3, 9),
    ((54, 38, 29), 4, 6),
    ((92, 62, 40), 4, 1),
    ((132, 90, 54), 3, 0),
    ((126, 58, 32), 1, 0),
    ((176, 92, 44), 1, 0),
    ((196, 158, 100), 3, 0),
    ((226, 200, 150), 2, 0),
    ((150, 148, 146), 1, 1),
    ((214, 211, 206), 1, 1),
)
_IRIS: Final = (
    (66, 40, 24),
    (94, 60, 32),
    (122, 88, 46),
    (112, 122, 74),
    (92, 128, 150),
    (74, 114, 166),
    (126, 138, 146),
)
_LIPSTICK: Final = ((188, 34, 52), (150, 30, 60), (206, 80, 104), (214, 92, 70), (120, 36, 50), (222, 124, 132))
_CLOTH: Final = (
    (38, 42, 52),
    (232, 230, 226),
    (52, 74, 118),
    (140, 40, 46),
    (84, 104, 88),
    (176, 160, 136),
    (112, 120, 132),
    (206, 150, 70),
    (98, 62, 104),
    (60, 128, 140),
)
HAIR_STYLES: Final = ("bald", "short", "fringe", "parted", "centre", "swept", "curly", "long", "long_fringe", "bun")
_STYLE_WEIGHTS: Final = (5, 16, 9, 14, 7, 10, 12, 15, 8, 7)


class Dice:
    """Hands out the uniforms behind one key in order; no state outlives the sampling of one face."""

    def __init__(self, *key: int | str) -> None:
        self._values = iter(uniforms(key64("draw", *key), 160).tolist())

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def bell(self, reach: float) -> float:
        """About 0, within +-reach, small values more likely."""
        return reach * (next(self._values) + next(self._values) - 1)

    def chance(self, share: float) -> bool:
        return bool(next(self._values) < share)

    def pick(self, items: tuple[T, ...], weights: tuple[float, ...] | None = None) -> T:
        steps = np.cumsum(weights or [1.0] * len(items))
        return items[int(np.searchsorted(steps, next(self._values) * steps[-1], side="right"))]


def sample_traits(seed: int, number: int) -> Traits:
    """The traits of face `number`. Each part has a key of its own, so parts do not shift each other's numbers."""

    def dice(part: str) -> Dice:
        return Dice(part, seed, number)

    groom = dice("grooming")
    feminine = groom.chance(0.5)
    tone = groom.between(0, 1)
    head = _head(dice("head"), tone, feminine)
    hair = _hair(dice("hair"), tone, feminine)
    bearded = not feminine and groom.chance(0.45)
    strength = groom.between(0.15, 0.75)
    return Traits(
        pose=_pose(dice("pose")),
        head=head,
        eyes=_eyes(dice("eyes"), tone, feminine),
        brows=_brows(dice("brows"), hair.rgb, feminine),
        nose=_nose(dice("nose"), feminine),
        mouth=_mouth(dice("mouth"), head.skin, feminine),
        hair=hair,
        beard=strength if bearded else 0.0,
        moustache=strength if bearded or (not feminine and groom.chance(0.1)) else 0.0,
        glasses=_glasses(dice("glasses")),
        scene=_scene(dice("scene")),
    )


def _pose(dice: Dice) -> Pose:
    return Pose(
        yaw=dice.bell(math.radians(21)),
        pitch=dice.bell(math.radians(12)),
        roll=dice.between(-math.radians(45), math.radians(45)),
        extent=dice.between(60, 83),
        place=(dice.between(0.02, 0.98), dice.between(0.1, 0.9)),
    )


def _head(dice: Dice, tone: float, feminine: bool) -> Head:
    position = tone * (len(_SKIN) - 1)
    index = min(int(position), len(_SKIN) - 2)
    skin = blend(_SKIN[index], _SKIN[index + 1], position - index)
    return Head(
        width=dice.between(1.14, 1.26) - 0.03 * feminine,
        top=dice.between(-1.6, -1.42),
        chin=dice.between(1.84, 2.06) - 0.05 * feminine,
        jaw=dice.between(0.66, 0.95) + 0.08 * feminine,
        skin=blend(skin, (skin[0], skin[1] * 0.95, skin[2] * 0.9), dice.between(-0.5, 1.0)),
        blush=dice.between(0.0, 1.0),
        age=dice.between(0.0, 1.0) ** 1.5,
    )


def _eyes(dice: Dice, tone: float, feminine: bool) -> Eyes:
    weights = (5.0, 4.0, 1.0, 0.1, 0.05, 0.05, 0.05) if tone > 0.55 else (3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 1.0)
    colour = dice.pick(_IRIS, weights)
    opening = dice.between(0.72, 1.15)
    painted = feminine and dice.chance(0.4)
    return Eyes(
        spread=dice.between(0.465, 0.535),
        width=dice.between(0.22, 0.26),
        upper=0.105 * opening + dice.between(-0.005, 0.015),
        lower=0.075 * opening + dice.between(-0.005, 0.01),
        tilt=dice.between(-0.025, 0.05),
        gaze=(dice.bell(0.075), dice.bell(0.022)),
        iris=dice.between(0.11, 0.124),
        iris_rgb=lit(colour, dice.between(0.85, 1.15)),
        pupil=dice.between(0.36, 0.52),
        crease=dice.between(0.02, 0.07),
        lashes=dice.between(0.6, 1.0) if feminine else dice.between(0.1, 0.5),
        shadow=dice.pick(((96, 62, 72), (70, 76, 104), (110, 78, 56), (64, 56, 58))) if painted else None,
    )


def _brows(dice: Dice, hair: Rgb, feminine: bool) -> Brows:
    return Brows(
        height=dice.between(0.32, 0.39),
        width=dice.between(0.34, 0.4),
        thick=dice.between(0.09, 0.13) if feminine else dice.between(0.12, 0.17),
        arch=dice.between(0.02, 0.1),
        tilt=dice.between(-0.06, 0.05),
        rgb=blend(lit(hair, 0.8), (60, 44, 36), 0.35),
    )


def _nose(dice: Dice, feminine: bool) -> Nose:
    return Nose(
        length=dice.between(0.92, 1.1),
        width=dice.between(0.29, 0.38) - 0.02 * feminine,
        bridge=dice.between(0.085, 0.125),
        depth=dice.between(0.3, 0.42),
    )


def _mouth(dice: Dice, skin: Rgb, feminine: bool) -> Mouth:
    natural = blend(skin, (168, 62, 68), dice.between(0.3, 0.55))
    painted = blend(natural, dice.pick(_LIPSTICK), dice.between(0.4, 0.9))
    wears = feminine and dice.chance(0.6)
    is_open = dice.chance(0.55)
    laughing = dice.chance(0.75)
    gap = dice.between(0.07, 0.26) if is_open else 0.0
    return Mouth(
        y=dice.between(1.02, 1.12),
        width=dice.between(0.34, 0.43) + (0.06 if is_open and laughing else 0.0),
        upper=dice.between(0.1, 0.14),
        lower=dice.between(0.13, 0.19),
        bow=dice.between(0.0, 0.03),
        smile=dice.between(0.06, 0.13) if is_open and laughing else dice.between(-0.005, 0.09),
        gap=gap,
        teeth=dice.between(0.55, 1.0) if laughing else dice.between(0.0, 0.5),
        rgb=painted if wears else natural,
    )


def _hair(dice: Dice, tone: float, feminine: bool) -> Hair:
    weights = tuple(dark if tone > 0.6 else light for _, light, dark in _HAIR)
    colour = dice.pick(tuple(rgb for rgb, _, _ in _HAIR), weights)
    taste = (0, 0.4, 1, 0.7, 1, 0.6, 1, 2, 2, 2) if feminine else (2, 2, 1, 1.2, 0.7, 1.3, 1, 0.25, 0.1, 0.1)
    return Hair(
        style=dice.pick(HAIR_STYLES, tuple(a * b for a, b in zip(_STYLE_WEIGHTS, taste, strict=True))),
        rgb=lit(colour, dice.between(0.85, 1.15)),
        volume=dice.between(0.14, 0.36),
        line=dice.between(-0.98, -0.74),
        side=dice.pick((-1, 1)),
        length=dice.between(1.5, 3.4),
        wave=dice.between(0.0, 0.09),
        phase=dice.between(0.0, 6.28),
    )


def _glasses(dice: Dice) -> Glasses | None:
    if not dice.chance(0.12):
        return None
    return Glasses(
        round=dice.between(0.55, 1.0),
        width=dice.between(0.34, 0.4),
        height=dice.between(0.24, 0.33),
        thick=dice.between(0.025, 0.06),
        rgb=dice.pick(((24, 22, 24), (70, 40, 24), (120, 116, 112), (150, 118, 66), (40, 52, 92), (120, 30, 40))),
        tint=dice.between(0.0, 0.12),
    )


def _scene(dice: Dice) -> Scene:
    grey = dice.between(40, 225)
    base = tuple(grey + dice.bell(32) for _ in range(3))
    near = tuple(value + dice.bell(42) for value in base)
    far = tuple(value + dice.bell(64) for value in base)
    return Scene(
        pattern=dice.pick(("plain", "blobs", "blobs", "stripes", "glow")),
        colours=((base[0], base[1], base[2]), (near[0], near[1], near[2]), (far[0], far[1], far[2])),
        numbers=tuple(dice.between(0, 1) for _ in range(24)),
        light=(dice.bell(0.75), dice.between(-0.65, 0.05)),
        contrast=dice.between(0.35, 0.75),
        cloth=lit(dice.pick(_CLOTH), dice.between(0.8, 1.15)),
        neckline=dice.pick(("round", "v", "collar", "high")),
    )
