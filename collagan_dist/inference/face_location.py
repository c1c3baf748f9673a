"""Where faces are in a photograph: the windows, in whole pixels, that a model completes.

In this order: what the user gives, the detector, the model's own landmarks, the surroundings of the hole, the middle of the
picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from collagan_dist.data.face_square import Points, Square, pixel_box, square_problem
from collagan_dist.data.readers.colour_profile import to_srgb
from collagan_dist.errors import DataError
from collagan_dist.inference import face_detector
from collagan_dist.inference.face_model import FaceModel
from collagan_dist.inference.face_views import Window, crop_window
from collagan_dist.inference.hole_mask import Box, HolePart, cover_hole, hole_box, trim_hole
from collagan_dist.inference.hole_source import Photograph
from collagan_dist.types import MAX_PIXELS

# How good these ways are. Measured on 102 frontal photographs, by a `demo` model of drawn faces after 400 steps: overlap (shared area by joint
# area) with the square from true landmarks, as median and tenth percentile; below, with a white hole of half the side.
#
#     detector                     .885 .755, of 102 faces     with a hole  .810 .612, of 75
#     model's landmarks            .789 .659, of 102                        .734 .499, of 102
#     detector, else landmarks     .885 .755 (used)                         .789 .611 (used)
#     landmarks, else detector     .789 .659                                .734 .499
#     detector, then a second look .893 .716                                .817 .605, else landmarks
#     hole, else the middle        .288 .248                                .608 .481
#
# A second look at what was detected moves the median by .01 to .03 and the tenth percentile down: it is left out.

# A hole is completed with some of the picture around it: this share of the hole's larger extent on each side.
_HOLE_MARGIN = 1 / 8
# Sides of first looks, as multiples of the hole's larger extent, and of the largest square in the middle.
_LOOKS_AROUND_HOLE = (2.0, 3.0, 4.5)
_LOOKS_IN_MIDDLE = (1.0, 0.7, 0.5)
# A window with a face has it where training had it: the face square that the second look finds is nearly the window itself.
_MAX_SHIFT, _MAX_SCALE = 0.2, 1.35
_WHOLE = "the whole picture"
_STRIP_ROWS = 256
_MIN_PEAK = -0.5  # mean peak of the heatmaps, from -1 to 1, below which there is no face


@dataclass(frozen=True)
class FaceWindow:
    """The window of a face, and how it was found; `note` says how a hole has changed it, or is empty.

    `landmarks` are those that were given, in pixels of the picture. `part` is what this face completes of a given hole that
    several faces share; None: all of it.
    """

    window: Window
    found_by: str
    note: str = ""
    landmarks: Points | None = None
    part: HolePart | None = field(default=None, compare=False, repr=False)

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
class GivenFaces:
    """What the user knows of the faces, in pixels as a viewer shows them: their squares in every picture, or landmarks by picture."""

    squares: Sequence[Window] = ()
    landmarks: Mapping[str, Points] | None = None

    def windows(self, model: FaceModel, photo: Photograph) -> list[FaceWindow]:
        """Return the given windows of a picture, [] if nothing is known of it. Raises DataError for one beside the picture."""
        points = (self.landmarks or {}).get(photo.name)
        if self.squares:
            squares = [Square(left + (side - 1) / 2, top + (side - 1) / 2, side) for left, top, side in self.squares]
        else:
            squares = [model.face_square(points)] if points is not None else []
        for square in squares:
            if problem := square_problem(square, photo.shape[1], photo.shape[0]):
                raise DataError(f"{photo.name}: {problem}; correct what is given for it")
        found_by = "as given" if self.squares else "by the given landmarks"
        # They are one face's, and say nothing of several squares.
        landmarks = points if len(squares) == 1 else None
        return [FaceWindow(pixel_box(square), found_by, landmarks=landmarks) for square in squares]


def locate_faces(
    model: FaceModel, photos: Sequence[Photograph], given: GivenFaces
) -> list[list[FaceWindow] | DataError]:
    """Return the windows of each photograph's faces, one or more, the largest first; a DataError where what is given is wrong.

    Of a photograph with a given hole these are the faces that complete it: together their windows contain all of it.
    """
    found: list[list[FaceWindow] | DataError] = []
    for photo in photos:
        try:
            found.append(given.windows(model, photo) or _whole(photo, model.size))
        except DataError as error:
            found.append(error)
    for look in (_detect, _look):
        unknown = [number for number, faces in enumerate(found) if faces == []]
        for number, faces in zip(unknown, look(model, [photos[n] for n in unknown]), strict=True):
            found[number] = faces
    return [
        faces
        if isinstance(faces, DataError)
        else _checked(_share_hole(faces or _fallback(photo, model.size), photo), photo)
        for faces, photo in zip(found, photos, strict=True)
    ]


def _checked(faces: list[FaceWindow], photo: Photograph) -> list[FaceWindow] | DataError:
    """Return the windows, or what is wrong with one: it is cut from the picture at its own size, with what lies beyond the border."""
    height, width = photo.shape
    for left, top, side in (face.window for face in faces):
        if left >= width or top >= height or left + side <= 0 or top + side <= 0:
            return DataError(f"{photo.name}: its face square lies beside the picture; correct what is given for it")
        if side * side > MAX_PIXELS:
            return DataError(
                f"{photo.name}: its face square has {side:,} pixels a side, which is too large; complete a smaller part of it"
            )
    return faces


def _whole(photo: Photograph, size: int) -> list[FaceWindow]:
    """Return all of a picture that has the model's size: it is what the model was trained on."""
    return [FaceWindow((0, 0, size), _WHOLE)] if photo.shape == (size, size) else []


def _detect(model: FaceModel, photos: Sequence[Photograph]) -> list[list[FaceWindow]]:
    """Return the windows of the faces that the detector sees and that a given hole touches; [] without any."""
    if not face_detector.is_available():
        return [[] for _ in photos]
    found = []
    for photo in photos:
        windows = [pixel_box(model.scale_square(square)) for square in face_detector.detect_faces(photo)]
        # Faces beside the hole are not those that it covers, which only the model may find.
        touched = windows if hole_box(photo.hole_HW) is None else [w for w in windows if _touches(w, photo.hole_HW)]
        found.append([FaceWindow(window, "by the detector") for window in touched])
    return found


def _fallback(photo: Photograph, size: int) -> list[FaceWindow]:
    box = hole_box(photo.hole_HW)
    if box is None:
        return [FaceWindow(_middle(photo.shape, 1.0), "in the middle")]
    # As in training, where a block has half the side. Not below the model's size, which would only be enlarged.
    return [FaceWindow(_around(box, max(2 * _extent(box), size), photo.shape), "around the hole")]


def _look(model: FaceModel, photos: Sequence[Photograph]) -> list[list[FaceWindow]]:
    """Return the window that the model's landmarks give in two passes; [] where they are no face."""
    if not photos or not model.finds_landmarks:
        return [[] for _ in photos]
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
    return [[FaceWindow(found[1], "by the model's landmarks")] if found else [] for found in best]


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


def _touches(window: Window, hole_HW: np.ndarray | None) -> bool:
    left, top, side = window
    return hole_HW is not None and bool(
        hole_HW[max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)].any()
    )


def _share_hole(faces: list[FaceWindow], photo: Photograph) -> list[FaceWindow]:
    """Return the faces that complete the photograph's given hole, in windows that contain it: each its part of it."""
    box = hole_box(photo.hole_HW)
    if photo.hole_HW is None or box is None:  # no hole, or an empty one
        return faces
    # A hole beside all faces belongs to the nearest one.
    distances = [float(_distances(face.window, _middle_of(box))[0, 0]) for face in faces]
    nearest = faces[distances.index(min(distances))]
    touched = [face for face in faces if _touches(face.window, photo.hole_HW)] or [nearest]
    if len(touched) == 1:
        return [_contain_hole(touched[0], box, photo.shape)]
    owners_HW = _nearest_faces(photo.hole_HW, [face.window for face in touched])
    shared = []
    for number, face in enumerate(touched):
        if part := trim_hole(owners_HW == number):
            shared.append(replace(_contain_hole(face, part.box, photo.shape), part=part))
    return shared


def _nearest_faces(hole_HW: np.ndarray, windows: Sequence[Window]) -> np.ndarray:
    """Return (H, W): the number of the window that a pixel of the hole is nearest to, and their count outside the hole."""
    owners_HW = np.full(hole_HW.shape, len(windows), np.min_scalar_type(len(windows)))
    # In strips: distances of the largest photograph would take 256 MB a face.
    for first in range(0, len(hole_HW), _STRIP_ROWS):
        last = min(first + _STRIP_ROWS, len(hole_HW))
        box = (0, first, hole_HW.shape[1], last)
        nearest = np.argmin([_distances(window, box) for window in windows], axis=0)
        np.copyto(owners_HW[first:last], nearest.astype(owners_HW.dtype), where=hole_HW[first:last])
    return owners_HW


def _distances(window: Window, box: Box) -> np.ndarray:
    """Return the distance of each pixel of a box from a window's middle, in its sides: below a half it is inside."""
    left, top, side = window
    x, y = (np.arange(box[axis], box[axis + 2], dtype=np.float32) for axis in (0, 1))
    return np.maximum(abs(x - (left + (side - 1) / 2)) / side, abs(y - (top + (side - 1) / 2))[:, None] / side)


def _middle_of(box: Box) -> Box:
    x, y = (box[0] + box[2]) // 2, (box[1] + box[3]) // 2
    return x, y, x + 1, y + 1


def _contain_hole(face: FaceWindow, box: Box, shape: tuple[int, int]) -> FaceWindow:
    """Return the window, moved or grown where it must be to contain a hole's box with some margin."""
    # A picture of the model's size has nothing around it.
    if face.found_by == _WHOLE:
        return face
    window = grow_to(face.window, box, shape)
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
