"""Random traits of a drawn face, as a pure function of (seed, number)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

import numpy as np

from collagan_dist.faces import traits
from collagan_dist.faces.traits import Rgb, Traits, blend, brighten
from collagan_dist.rng import key64, uniforms

T = TypeVar("T")

# From light to dark; a tone between 0 and 1 interpolates.
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
# (colour, its weight for light skin, its weight for dark skin): black to blond, grey, white.
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
# From brown to blue and grey.
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
# Hair styles, and how frequent each is.
HAIR_STYLES: Final = ("bald", "short", "fringe", "parted", "centre", "swept", "curly", "long", "long_fringe", "bun")
_STYLE_WEIGHTS: Final = (5, 16, 9, 14, 7, 10, 12, 15, 8, 7)


class UniformSequence:
    """The uniform numbers of one key, used one after the other."""

    def __init__(self, *key: int | str) -> None:
        # More than any part of a face uses.
        self._values = iter(uniforms(key64("draw", *key), 160).tolist())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * next(self._values)

    def triangular(self, reach: float) -> float:
        """Return a number between -reach and reach with a triangular density, the sum of two uniform ones."""
        return reach * (next(self._values) + next(self._values) - 1)

    def bernoulli(self, share: float) -> bool:
        return bool(next(self._values) < share)

    def choice(self, items: tuple[T, ...], weights: tuple[float, ...] | None = None) -> T:
        steps = np.cumsum(weights or [1.0] * len(items))
        return items[int(np.searchsorted(steps, next(self._values) * steps[-1], side="right"))]


def sample_traits(seed: int, number: int, coupling: float = 1.0) -> Traits:
    """Return the traits of face `number` of a seed.

    `coupling` is how far parts determine one another: with this probability a trait of one part is that of another. An eye
    and a brow mirror the other one, brows have the hair's colour, all parts are under one light. Else it is drawn anew by the same
    law, so a part alone looks the same at any coupling.
    """
    # Each part has a key of its own, so that a change of one part leaves the numbers of the others.

    def draw(part: str) -> UniformSequence:
        return UniformSequence(part, seed, number)

    groom = draw("grooming")
    feminine = groom.bernoulli(0.5)
    tone = groom.uniform(0, 1)
    head = _head(draw("head"), tone, feminine)
    hair = _hair(draw("hair"), tone, feminine)
    bearded = not feminine and groom.bernoulli(0.45)
    strength = groom.uniform(0.15, 0.75)
    eyes, brows = _eyes(draw("eyes"), tone, feminine), _brows(draw("brows"), hair.rgb, feminine)
    face = Traits(
        pose=_pose(draw("pose")),
        head=head,
        eyes={-1: eyes, 1: eyes},
        brows={-1: brows, 1: brows},
        nose=_nose(draw("nose"), feminine),
        mouth=_mouth(draw("mouth"), head.skin, feminine),
        hair=hair,
        beard_rgb=brows.rgb,
        beard=strength if bearded else 0.0,
        moustache=strength if bearded or (not feminine and groom.bernoulli(0.1)) else 0.0,
        glasses=_glasses(draw("glasses")),
        scene=_scene(draw("scene")),
        lights={},
    )
    return face if coupling == 1 else _uncouple(face, draw, coupling)


# Traits that are drawn together are shared together: an eye's opening decides both of its lids.
_EYE_GROUPS: Final = (("spread",), ("width", "upper", "lower", "tilt", "crease"), ("gaze",), ("iris", "iris_rgb", "pupil"),
                      ("lashes", "shadow"))  # fmt: skip
_BROW_GROUPS: Final = (("height", "tilt"), ("width", "thick", "arch"), ("rgb",))


def _uncouple(face: Traits, draw: Callable[[str], UniformSequence], coupling: float) -> Traits:
    """Return the face with traits drawn anew, each group with probability 1 - coupling."""
    shared = draw("coupling")

    def drawn_anew(one: T, another: T, groups: tuple[tuple[str, ...], ...]) -> T:
        """Return `one` with the groups of `another` that are not shared."""
        names = [name for group in groups if not shared.bernoulli(coupling) for name in group]
        return replace(one, **{name: getattr(another, name) for name in names})  # type: ignore[type-var]

    def another_person(part: str) -> tuple[UniformSequence, float, bool]:
        own = draw(part)
        return own, own.uniform(0, 1), own.bernoulli(0.5)

    own, tone, feminine = another_person("right eye")
    right_eye = drawn_anew(face.eyes[1], _eyes(own, tone, feminine), _EYE_GROUPS)
    brows: dict[int, traits.Brows] = {}
    for side, name, groups in ((-1, "left brow", _BROW_GROUPS[-1:]), (1, "right brow", _BROW_GROUPS)):
        own, tone, feminine = another_person(name)
        another = _brows(own, _hair(draw(f"hair of {name}"), tone, feminine).rgb, feminine)
        brows[side] = drawn_anew(brows.get(-1, face.brows[side]), another, groups)
    lights = {part: _light(draw(f"light on {part}")) for part in traits.LIT_PARTS if not shared.bernoulli(coupling)}
    return replace(face, eyes={-1: face.eyes[-1], 1: right_eye}, brows=brows, lights=lights)


def _pose(draw: UniformSequence) -> traits.Pose:
    return traits.Pose(
        yaw=draw.triangular(math.radians(21)),
        pitch=draw.triangular(math.radians(12)),
        # Faces in the wild are not upright, and packing does not align them.
        roll=draw.uniform(-math.radians(45), math.radians(45)),
        # The stored square is 4.16 times the extent (canvas.SQUARE_EXTENTS): 345 of the picture's 360 pixels at most.
        extent=draw.uniform(60, 83),
        place=(draw.uniform(0.02, 0.98), draw.uniform(0.1, 0.9)),
    )


def _head(draw: UniformSequence, tone: float, feminine: bool) -> traits.Head:
    position = tone * (len(_SKIN) - 1)
    index = min(int(position), len(_SKIN) - 2)
    skin = blend(_SKIN[index], _SKIN[index + 1], position - index)
    return traits.Head(
        width=draw.uniform(1.14, 1.26) - 0.03 * feminine,
        top=draw.uniform(-1.6, -1.42),
        chin=draw.uniform(1.84, 2.06) - 0.05 * feminine,
        jaw=draw.uniform(0.66, 0.95) + 0.08 * feminine,
        # Skin of one tone is redder or yellower.
        skin=blend(skin, (skin[0], skin[1] * 0.95, skin[2] * 0.9), draw.uniform(-0.5, 1.0)),
        blush=draw.uniform(0.0, 1.0),
        # Deep folds are rarer than shallow ones.
        age=draw.uniform(0.0, 1.0) ** 1.5,
    )


def _eyes(draw: UniformSequence, tone: float, feminine: bool) -> traits.Eyes:
    # In the order of _IRIS: eyes of dark skin are brown almost always.
    weights = (5.0, 4.0, 1.0, 0.1, 0.05, 0.05, 0.05) if tone > 0.55 else (3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 1.0)
    colour = draw.choice(_IRIS, weights)
    opening = draw.uniform(0.72, 1.15)
    painted = feminine and draw.bernoulli(0.4)
    return traits.Eyes(
        spread=draw.uniform(0.465, 0.535),
        width=draw.uniform(0.22, 0.26),
        upper=0.105 * opening + draw.uniform(-0.005, 0.015),
        lower=0.075 * opening + draw.uniform(-0.005, 0.01),
        tilt=draw.uniform(-0.025, 0.05),
        gaze=(draw.triangular(0.075), draw.triangular(0.022)),
        iris=draw.uniform(0.11, 0.124),
        iris_rgb=brighten(colour, draw.uniform(0.85, 1.15)),
        pupil=draw.uniform(0.36, 0.52),
        crease=draw.uniform(0.02, 0.07),
        lashes=draw.uniform(0.6, 1.0) if feminine else draw.uniform(0.1, 0.5),
        shadow=draw.choice(((96, 62, 72), (70, 76, 104), (110, 78, 56), (64, 56, 58))) if painted else None,
    )


def _brows(draw: UniformSequence, hair: Rgb, feminine: bool) -> traits.Brows:
    return traits.Brows(
        height=draw.uniform(0.32, 0.39),
        width=draw.uniform(0.34, 0.4),
        thick=draw.uniform(0.09, 0.13) if feminine else draw.uniform(0.12, 0.17),
        arch=draw.uniform(0.02, 0.1),
        tilt=draw.uniform(-0.06, 0.05),
        rgb=blend(brighten(hair, 0.8), (60, 44, 36), 0.35),
    )


def _nose(draw: UniformSequence, feminine: bool) -> traits.Nose:
    return traits.Nose(
        length=draw.uniform(0.92, 1.1),
        width=draw.uniform(0.29, 0.38) - 0.02 * feminine,
        bridge=draw.uniform(0.085, 0.125),
        depth=draw.uniform(0.3, 0.42),
    )


def _mouth(draw: UniformSequence, skin: Rgb, feminine: bool) -> traits.Mouth:
    natural = blend(skin, (168, 62, 68), draw.uniform(0.3, 0.55))
    painted = blend(natural, draw.choice(_LIPSTICK), draw.uniform(0.4, 0.9))
    wears = feminine and draw.bernoulli(0.6)
    # Teeth show in about half of the faces: they are a class, and need samples.
    is_open = draw.bernoulli(0.55)
    laughing = draw.bernoulli(0.75)
    gap = draw.uniform(0.07, 0.26) if is_open else 0.0
    return traits.Mouth(
        y=draw.uniform(1.02, 1.12),
        width=draw.uniform(0.34, 0.43) + (0.06 if is_open and laughing else 0.0),
        upper=draw.uniform(0.1, 0.14),
        lower=draw.uniform(0.13, 0.19),
        bow=draw.uniform(0.0, 0.03),
        smile=draw.uniform(0.06, 0.13) if is_open and laughing else draw.uniform(-0.005, 0.09),
        gap=gap,
        teeth=draw.uniform(0.55, 1.0) if laughing else draw.uniform(0.0, 0.5),
        rgb=painted if wears else natural,
    )


def _hair(draw: UniformSequence, tone: float, feminine: bool) -> traits.Hair:
    weights = tuple(dark if tone > 0.6 else light for _, light, dark in _HAIR)
    colour = draw.choice(tuple(rgb for rgb, _, _ in _HAIR), weights)
    # Factors of _STYLE_WEIGHTS for women and for men.
    taste = (0, 0.4, 1, 0.7, 1, 0.6, 1, 2, 2, 2) if feminine else (2, 2, 1, 1.2, 0.7, 1.3, 1, 0.25, 0.1, 0.1)
    return traits.Hair(
        style=draw.choice(HAIR_STYLES, tuple(a * b for a, b in zip(_STYLE_WEIGHTS, taste, strict=True))),
        rgb=brighten(colour, draw.uniform(0.85, 1.15)),
        volume=draw.uniform(0.14, 0.36),
        line=draw.uniform(-0.98, -0.74),
        side=draw.choice((-1, 1)),
        length=draw.uniform(1.5, 3.4),
        wave=draw.uniform(0.0, 0.09),
        phase=draw.uniform(0.0, 6.28),
    )


def _glasses(draw: UniformSequence) -> traits.Glasses | None:
    if not draw.bernoulli(0.12):
        return None
    return traits.Glasses(
        round=draw.uniform(0.55, 1.0),
        width=draw.uniform(0.34, 0.4),
        height=draw.uniform(0.24, 0.33),
        thick=draw.uniform(0.025, 0.06),
        rgb=draw.choice(((24, 22, 24), (70, 40, 24), (120, 116, 112), (150, 118, 66), (40, 52, 92), (120, 30, 40))),
        tint=draw.uniform(0.0, 0.12),
    )


def _scene(draw: UniformSequence) -> traits.Scene:
    # Three colours that are not far from each other, as in most backdrops.
    grey = draw.uniform(40, 225)
    base = tuple(grey + draw.triangular(32) for _ in range(3))
    near = tuple(value + draw.triangular(42) for value in base)
    far = tuple(value + draw.triangular(64) for value in base)
    pattern = draw.choice(("plain", "blobs", "blobs", "stripes", "glow"))
    # Enough for four blobs of four numbers; the other patterns use fewer.
    numbers = tuple(draw.uniform(0, 1) for _ in range(24))
    x, y, contrast = _light(draw)
    return traits.Scene(
        pattern=pattern,
        colours=((base[0], base[1], base[2]), (near[0], near[1], near[2]), (far[0], far[1], far[2])),
        numbers=numbers,
        light=(x, y),
        contrast=contrast,
        cloth=brighten(draw.choice(_CLOTH), draw.uniform(0.8, 1.15)),
        neckline=draw.choice(("round", "v", "collar", "high")),
    )


def _light(draw: UniformSequence) -> tuple[float, float, float]:
    """Return the light's direction (x, y) and contrast."""
    return draw.triangular(0.75), draw.uniform(-0.65, 0.05), draw.uniform(0.35, 0.75)
