"""What one drawn face looks like: the parameters, and the two ways to change a colour.

Lengths are in face units: 1 is the distance between the eye centres of an average face seen from the front; x grows to
the right of the picture, y down, z towards the viewer; (0, 0) lies between the eyes. Angles are radians, colours RGB
0..255.
"""

from __future__ import annotations

from dataclasses import dataclass

Rgb = tuple[float, float, float]


def blend(a: Rgb, b: Rgb, share: float) -> Rgb:
    """`share` of b in a."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def lit(rgb: Rgb, factor: float) -> Rgb:
    """A colour under more (> 1) or less light."""
    return (min(255.0, rgb[0] * factor), min(255.0, rgb[1] * factor), min(255.0, rgb[2] * factor))


@dataclass(frozen=True)
class Pose:
    """Angles of the head, the landmarks' extent in pixels, and where between the limits the face stands (0..1)."""

    yaw: float
    pitch: float
    roll: float
    extent: float
    place: tuple[float, float]


@dataclass(frozen=True)
class Head:
    """Half width at the cheekbones, top and chin (y), squareness of the jaw (small is square)."""

    width: float
    top: float
    chin: float
    jaw: float
    skin: Rgb
    blush: float
    age: float


@dataclass(frozen=True)
class Eyes:
    """One set of numbers for both eyes: the face's eyes match, mirrored."""

    spread: float
    width: float
    upper: float
    lower: float
    tilt: float
    gaze: tuple[float, float]
    iris: float
    iris_rgb: Rgb
    pupil: float
    crease: float
    lashes: float
    shadow: Rgb | None


@dataclass(frozen=True)
class Brows:
    height: float
    width: float
    thick: float
    arch: float
    tilt: float
    rgb: Rgb


@dataclass(frozen=True)
class Nose:
    length: float
    width: float
    bridge: float
    depth: float


@dataclass(frozen=True)
class Mouth:
    """`gap` is the height of the opening, 0 when closed; `smile` lifts the corners."""

    y: float
    width: float
    upper: float
    lower: float
    bow: float
    smile: float
    gap: float
    teeth: float
    rgb: Rgb


@dataclass(frozen=True)
class Hair:
    """`side` is the parting's side (-1 left, 1 right), `line` the y of the hairline, `length` the y of the ends."""

    style: str
    rgb: Rgb
    volume: float
    line: float
    side: int
    length: float
    wave: float
    phase: float


@dataclass(frozen=True)
class Glasses:
    round: float
    width: float
    height: float
    thick: float
    rgb: Rgb
    tint: float


@dataclass(frozen=True)
class Scene:
    """Backdrop colours and pattern, the light's direction and strength, clothes."""

    pattern: str
    colours: tuple[Rgb, Rgb, Rgb]
    numbers: tuple[float, ...]
    light: tuple[float, float]
    contrast: float
    cloth: Rgb
    neckline: str


@dataclass(frozen=True)
class Traits:
    pose: Pose
    head: Head
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    beard: float
    moustache: float
    glasses: Glasses | None
    scene: Scene
