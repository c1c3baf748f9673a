"""The traits of one drawn face: all parameters that its picture, labels and landmarks are computed from.

Lengths are in face units: the eye centres of an average face seen from the front are 1 apart. x grows to the right of the
picture, y down, z towards the viewer; (0, 0) is between the eyes. Angles are in radians, colours are RGB from 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Rgb = tuple[float, float, float]


def blend(a: Rgb, b: Rgb, share: float) -> Rgb:
    """Return a mixture: a for share 0, b for share 1."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def brighten(rgb: Rgb, factor: float) -> Rgb:
    """Return a colour under more (factor > 1) or less light."""
    return (min(255.0, rgb[0] * factor), min(255.0, rgb[1] * factor), min(255.0, rgb[2] * factor))


# Parts that may have a light of their own; the eyes with their brows.
LIT_PARTS: Final = ("left eye", "right eye", "nose", "mouth")


@dataclass(frozen=True)
class Pose:
    """Angles of the head, its size, and its position in the picture."""

    yaw: float  # to the side
    pitch: float  # up and down
    roll: float  # in the picture's plane
    extent: float  # larger extent of the landmarks, pixels
    place: tuple[float, float]  # 0 to 1 in x and y of the room that the stored square leaves


@dataclass(frozen=True)
class Head:
    """The outline and the skin of the head."""

    width: float  # half of it, at the cheekbones
    top: float  # y
    chin: float  # y
    jaw: float  # exponent of a superellipse; small is square
    skin: Rgb
    blush: float  # redness of the cheeks, 0 to 1
    age: float  # depth of folds, 0 to 1


@dataclass(frozen=True)
class Eyes:
    """One eye; the other one has the same numbers where it is its mirror image."""

    spread: float  # distance of each centre from the middle
    width: float  # half of it
    upper: float  # height of the upper lid over the corners
    lower: float  # depth of the lower lid below them
    tilt: float  # rise of the outer corner
    gaze: tuple[float, float]  # shift of the iris, x and y
    iris: float  # radius
    iris_rgb: Rgb
    pupil: float  # radius as a share of the iris
    crease: float  # distance of the fold over the upper lid
    lashes: float  # length, 0 to 1
    shadow: Rgb | None  # eye shadow, or None


@dataclass(frozen=True)
class Brows:
    """One eyebrow; the other one has the same numbers where it is its mirror image."""

    height: float  # over the eye
    width: float  # half of it
    thick: float  # at the inner end
    arch: float  # height of the bend
    tilt: float  # rise of the outer end
    rgb: Rgb


@dataclass(frozen=True)
class Nose:
    """The nose."""

    length: float  # scales the y of all its points
    width: float  # half of it, at the wings
    bridge: float  # half of its width between the eyes
    depth: float  # lift of the tip off the face


@dataclass(frozen=True)
class Mouth:
    """The mouth."""

    y: float  # of the line between the lips
    width: float  # half of it
    upper: float  # thickness of the upper lip
    lower: float  # thickness of the lower lip
    bow: float  # depth of the Cupid's bow
    smile: float  # rise of the corners
    gap: float  # height of the opening, 0 when closed
    teeth: float  # 0 to 1: how much of the opening teeth cover
    rgb: Rgb  # of the lips


@dataclass(frozen=True)
class Hair:
    """The hair of the head."""

    style: str  # one of sampling.HAIR_STYLES
    rgb: Rgb
    volume: float  # how far it stands off the head
    line: float  # y of the hairline
    side: int  # of the parting: -1 left, 1 right
    length: float  # y of the ends of long hair
    wave: float  # amplitude of waves
    phase: float  # of waves and curls, radians


@dataclass(frozen=True)
class Glasses:
    """Glasses."""

    round: float  # exponent of a superellipse; 1 is an ellipse, smaller is more rectangular
    width: float  # half of a lens
    height: float  # half of a lens
    thick: float  # of the frame
    rgb: Rgb
    tint: float  # opacity of the lenses


@dataclass(frozen=True)
class Scene:
    """Backdrop, light and clothes."""

    pattern: str  # plain, blobs, stripes or glow
    colours: tuple[Rgb, Rgb, Rgb]  # of the backdrop: base, gradient, pattern
    numbers: tuple[float, ...]  # 0 to 1; parameters of the pattern
    light: tuple[float, float]  # direction, x and y for z = 1
    contrast: float  # share of directed light
    cloth: Rgb
    neckline: str  # round, v, collar or high


@dataclass(frozen=True)
class Traits:
    """All traits of one face."""

    pose: Pose
    head: Head
    eyes: dict[int, Eyes]  # by side: -1 left, 1 right
    brows: dict[int, Brows]
    nose: Nose
    mouth: Mouth
    hair: Hair
    beard_rgb: Rgb
    beard: float  # 0 (none) to 1
    moustache: float  # 0 (none) to 1
    glasses: Glasses | None
    scene: Scene
    # Direction (x, y) and contrast of the light on LIT_PARTS that have their own; the others have the scene's.
    lights: dict[str, tuple[float, float, float]]
