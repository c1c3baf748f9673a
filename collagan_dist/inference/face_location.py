"""Where the face is in a photograph: the window, in whole pixels, that a model completes.

In this order: what the user gives, the model's own landmarks, the surroundings of the hole, the middle of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from collagan_dist.data.face_square import Points, Square, pixel_box, square_problem
from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.errors import DataError
from collagan_dist.inference.face_model import FaceModel
from collagan_dist.inference.face_views import Window, crop_window
from collagan_dist.inference.hole_mask import cover_hole
from collagan_dist.inference.hole_source import Photograph
from collagan_dist.types import MAX_PIXELS

# A hole is completed with some of the picture around it: this share of the hole's larger extent on each side.
_HOLE_MARGIN = 1 / 8
# Sides of first looks, as multiples of the hole's larger extent, and of the largest square in the middle.
_LOOKS_AROUND_HOLE = (2.0, 3.0, 4.5)
_LOOKS_IN_MIDDLE = (1.0, 0.7, 0.5)
# A window with a face has it where training had it: the face square that the second look finds is nearly the window itself.
_MAX_SHIFT, _MAX_SCALE = 0.2, 1.35
_MIN_PEAK = -0.5  # mean peak of the heatmaps, from -1 to 1, below which there is no face


@dataclass(frozen=True)
class FaceWindow:
    """The window of a face, and how it was found; `note` says how a hole has changed it, or is empty.

    `landmarks` are those that were given, in pixels of the picture.
    """

    window: Window
    found_by: str
    note: str = ""
    landmarks: Points | None = None

    def __str__(self) -> str:
        left, top, side = self.window
        return f"face square of {side} pixels at {left},{top}: {self.found_by}"


def lost_detail(sides: Sequence[int], size: int) -> str:
    """Say what a model of `size` pixels cannot give for face squares of these sides; empty where it loses nothing."""
    first, last = min(sides), max(sides)
    if last <= size:
        return ""
    squares = f"face square of {last}" if first == last else f"face squares of {first} to {last}"
    scale = f"{'' if first == last else 'up to '}{last / size:.1f}"
    return f"{squares} pixels completed at {size}: {scale} pixels of the picture for one of the model"


@dataclass(frozen=True)
class GivenFace:
    """What the user knows of the faces: a square for all pictures, or landmarks by picture, in pixels as a viewer shows them."""

    square: Window | None = None
    landmarks: Mapping[str, Points] | None = None

    def window(self, model: FaceModel, photo: Photograph) -> FaceWindow | None:
        """Return the given window of a picture, None if nothing is known of it. Raises DataError for one beside the picture."""
        if self.square is not None:
            left, top, side = self.square
            square, found_by = Square(left + (side - 1) / 2, top + (side - 1) / 2, side), "as given"
        elif (points := (self.landmarks or {}).get(photo.name)) is not None:
            square, found_by = model.face_square(points), "by the given landmarks"
        else:
            return None
        if problem := square_problem(square, photo.shape[1], photo.shape[0]):
            raise DataError(f"{photo.name}: {problem}; correct what is given for it")
        return FaceWindow(pixel_box(square), found_by, landmarks=(self.landmarks or {}).get(photo.name))


def locate_faces(model: FaceModel, photos: Sequence[Photograph], given: GivenFace) -> list[FaceWindow | DataError]:
    """Return the window of each photograph's face, which contains its given hole; a DataError where what is given is wrong."""
    found: list[FaceWindow | DataError | None] = []
    for photo in photos:
        try:
            found.append(given.window(model, photo) or _whole(photo, model.size))
        except DataError as error:
            found.append(error)
    unknown = [number for number, face in enumerate(found) if face is None]
    # A detector with weights of its own would look here, at the photographs that are still unknown.
    if unknown and model.finds_landmarks:
        for number, window in zip(unknown, _look(model, [photos[n] for n in unknown]), strict=True):
            found[number] = FaceWindow(window, "by the model's landmarks") if window else None
    return [
        face
        if isinstance(face, DataError)
        else _checked(_contain_hole(face or _fallback(photo, model.size), photo), photo)
        for face, photo in zip(found, photos, strict=True)
    ]


def _checked(face: FaceWindow, photo: Photograph) -> FaceWindow | DataError:
    """Return the window, or what is wrong with it: it is cut from the picture at its own size, with what lies beyond the border."""
    left, top, side = face.window
    height, width = photo.shape
    if left >= width or top >= height or left + side <= 0 or top + side <= 0:
        return DataError(f"{photo.name}: its face square lies beside the picture; correct what is given for it")
    if side * side > MAX_PIXELS:
        return DataError(
            f"{photo.name}: its face square has {side:,} pixels a side, which is too large; complete a smaller part of it"
        )
    return face


def _whole(photo: Photograph, size: int) -> FaceWindow | None:
    """Return all of a picture that has the model's size: it is what the model was trained on."""
    return FaceWindow((0, 0, size), "the whole picture") if photo.shape == (size, size) else None


def _fallback(photo: Photograph, size: int) -> FaceWindow:
    box = hole_box(photo.hole_HW)
    if box is None:
        return FaceWindow(_middle(photo.shape, 1.0), "in the middle")
    # As in training, where a block has half the side. Not below the model's size, which would only be enlarged.
    return FaceWindow(_around(box, max(2 * _extent(box), size), photo.shape), "around the hole")


def _look(model: FaceModel, photos: Sequence[Photograph]) -> list[Window | None]:
    """Return the windows that the model's landmarks give in two passes; None where they are no face."""
    looks = [(n, window) for n, photo in enumerate(photos) for window in _first_looks(photo, model.size)]
    points, _ = _landmarks(model, photos, looks)
    squares = [(n, model.face_square(p)) for (n, _), p in zip(looks, points, strict=True) if _is_face(p)]
    second = [(n, pixel_box(s)) for n, s in squares if square_problem(s, *photos[n].shape[::-1]) is None]
    best: list[tuple[float, Window] | None] = [None] * len(photos)
    points, peaks = _landmarks(model, photos, second)
    for (n, window), p, peak in zip(second, points, peaks, strict=True):
        if not _is_face(p) or peak < _MIN_PEAK or not _agree(square := model.face_square(p), window):
            continue
        known = best[n]
        if square_problem(square, *photos[n].shape[::-1]) is None and (known is None or peak > known[0]):
            best[n] = float(peak), pixel_box(square)
    return [found[1] if found else None for found in best]


def _first_looks(photo: Photograph, size: int) -> list[Window]:
    middle = [_middle(photo.shape, scale) for scale in _LOOKS_IN_MIDDLE]
    if (box := hole_box(photo.hole_HW)) is None:
        return middle
    return middle[:2] + [_around(box, max(f * _extent(box), size / 2), photo.shape) for f in _LOOKS_AROUND_HOLE]


def _landmarks(
    model: FaceModel, photos: Sequence[Photograph], looks: Sequence[tuple[int, Window]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 5, 2) landmarks in pixels of the photographs and (N,) peaks for looks, each (number, window)."""
    if not looks:
        return np.zeros((0, 5, 2)), np.zeros(0)
    faces, holes = [], []
    for number, window in looks:
        photo = photos[number]
        faces.append(to_srgb(crop_window(photo.pixels_HW3, window, model.size), photo.profile))
        holes.append(cover_hole(photo.hole_HW, window, model.size))
    names = [photos[number].name for number, _ in looks]
    points, peaks = model.find_landmarks(np.stack(faces), np.stack(holes), names)
    return np.stack([to_picture(p, w, model.size) for p, (_, w) in zip(points, looks, strict=True)]), peaks


def to_picture(points_K2: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Map points of a window that was resized to `size` pixels into the picture."""
    left, top, side = window
    # A pixel's centre is half a pixel from its edge, and resizing scales distances from the edge.
    return (points_K2 + 0.5) * (side / size) - 0.5 + (left, top)


def _is_face(points_52: np.ndarray) -> bool:
    """Return whether five points lie as in a face that is about upright: they decide the square's scale."""
    (left, right), nose, mouths = points_52[:2], points_52[2], points_52[3:]
    eyes, mouth = (left + right) / 2, mouths.mean(0)
    across, down = right - left, mouth - eyes
    wide, high = math.hypot(*across), math.hypot(*down)
    if across[0] <= 0 or down[1] <= 0 or mouths[1][0] <= mouths[0][0]:
        return False
    return 0.4 < wide / high < 2.2 and eyes[1] < nose[1] < mouth[1] and abs(across[1]) < wide


def _agree(square: Square, window: Window) -> bool:
    left, top, side = window
    shift = math.hypot(square.x - left - (side - 1) / 2, square.y - top - (side - 1) / 2)
    return shift < _MAX_SHIFT * side and 1 / _MAX_SCALE < square.side / side < _MAX_SCALE


Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are one beyond


def hole_box(hole_HW: np.ndarray | None) -> Box | None:
    """Return the smallest box around a hole, None without one."""
    if hole_HW is None:
        return None
    columns, rows = np.flatnonzero(hole_HW.any(0)), np.flatnonzero(hole_HW.any(1))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(columns) else None


def _extent(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _middle(shape: tuple[int, int], scale: float) -> Window:
    side = max(1, round(scale * min(shape)))
    return (shape[1] - side) // 2, (shape[0] - side) // 2, side


def _around(box: Box, side: float, shape: tuple[int, int]) -> Window:
    """Return the window of about this side around a box, moved into the picture; it is not larger than fits."""
    whole = min(round(side), *shape)
    left, top = ((box[axis] + box[axis + 2] - whole) // 2 for axis in (0, 1))
    return min(max(left, 0), shape[1] - whole), min(max(top, 0), shape[0] - whole), whole


def _contain_hole(face: FaceWindow, photo: Photograph) -> FaceWindow:
    """Return the window, moved or grown where it must be to contain the photograph's given hole with some margin."""
    box = hole_box(photo.hole_HW)
    # A picture of the model's size has nothing around it.
    if box is None or face.found_by == "the whole picture":
        return face
    window = grow_to(face.window, box, photo.shape)
    if window == face.window:
        return face
    old, new = face.window[2], window[2]
    change = f"grown from {old} to {new} pixels" if new > old else "moved"
    return replace(face, window=window, note=f"its face square was {change} to contain the hole")


def grow_to(window: Window, box: Box, shape: tuple[int, int]) -> Window:
    """Return the nearest and smallest window, not smaller than this, that contains a hole's box and a margin inside the picture."""
    margin = math.ceil(_HOLE_MARGIN * _extent(box))
    first = [max(0, box[axis] - margin) for axis in (0, 1)]
    last = [min(shape[1 - axis], box[axis + 2] + margin) for axis in (0, 1)]
    side = max(window[2], *(b - a for a, b in zip(first, last, strict=True)))
    corner = []
    for axis in (0, 1):
        # Grown around its middle, then moved no further than needed.
        start = window[axis] - (side - window[2]) // 2
        corner.append(min(max(start, last[axis] - side), first[axis]))
    return corner[0], corner[1], side
