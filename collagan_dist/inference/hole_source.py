"""Where `collagan complete` gets holes from: a kind, one file, a folder of files, or the transparent parts of the pictures."""

from __future__ import annotations

import glob
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from collagan_dist.data.loading import holes
from collagan_dist.data.readers.hole_file import read_hole, read_painted
from collagan_dist.data.readers.picture import UnusablePicture, read_picture, resize_nearest
from collagan_dist.data.readers.picture_format import masked_name, split_suffix
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.hole_mask import shrink_hole
from collagan_dist.types import File

logger = logging.getLogger(__name__)

ALPHA = "alpha"  # of --hole: what is transparent in a picture is its hole


@dataclass(frozen=True)
class HoleSource:
    """A kind of holes.HOLES, ALPHA, one file for all pictures, or a folder with one for each: `kind` or `path`."""

    kind: str | None
    path: Path | None = None

    @property
    def is_given(self) -> bool:
        """Whether holes lie where the user has put them, and not in the face square."""
        return self.kind is None or self.kind == ALPHA

    def file(self, picture: Path, name: str) -> str | None:
        """Return the hole file of a picture, None for a kind. `name` is the picture's, relative to its folder.

        Raises DataError if the folder of holes has none, or several.
        """
        if self.path is None or not self.path.is_dir():
            return str(self.path) if self.path else None
        stem = split_suffix(name)[0]
        beside = (self.path / stem).parent
        named = [self.path / f"{stem}.png", *sorted(beside.glob(f"{glob.escape(Path(stem).name)}_mask*.png"))]
        stems = (picture.stem, Path(stem).name)
        found = [
            p
            for p in named
            if p.is_file() and not _same(p, picture) and any(s in (p.stem, masked_name(p.name)) for s in stems)
        ]
        if len(found) != 1:
            names = ", ".join(p.name for p in found) if found else f"neither {stem}.png nor {stem}_mask.png"
            raise DataError(f"{picture}: the folder of holes {self.path} has {names} for it; give it one hole")
        return str(found[0])


def parse_hole(hole: str) -> HoleSource:
    """Return the source that `--hole` names. Raises ConfigError."""
    if hole in holes.HOLES or hole == ALPHA:
        return HoleSource(hole)
    if not Path(hole).exists():
        raise ConfigError(
            f"--hole {hole}: must be a PNG file (white = hole), a folder of such files, {ALPHA}, or one of {', '.join(holes.HOLES)}"
        )
    return HoleSource(None, Path(hole))


@dataclass(frozen=True)
class Photograph:
    """A picture, upright: its uint8 pixels in the colours of `profile`, and its hole, None where a kind makes it.

    `name` is relative to the folder of pictures, without a suffix; results and random numbers derive from it.
    """

    name: str
    pixels_HW3: np.ndarray
    profile: bytes | None
    hole_HW: np.ndarray | None

    @property
    def shape(self) -> tuple[int, int]:
        return self.pixels_HW3.shape[0], self.pixels_HW3.shape[1]


def read_photograph(path: Path, name: str, source: HoleSource) -> Photograph:
    """Read a picture and the hole that is given for it. Raises DataError; an empty or a full hole is said."""
    file = source.file(path, name)
    # Before the picture: what decoding the largest takes is free again.
    hole = read_hole(file) if file else None
    photo = open_photograph(str(path), name, painted=source.kind == ALPHA)
    if hole is not None:
        photo = replace(photo, hole_HW=_fit_hole(hole, photo.shape, file or str(path)))
    if photo.hole_HW is not None:
        _report_extreme(path, photo.hole_HW, f"its hole {file}" if file else "its transparent part")
    return photo


def open_photograph(file: File, name: str, painted: bool = False) -> Photograph:
    """Read a picture alone; where it is `painted`, its transparent part is its hole. Raises DataError."""
    hole = None
    try:
        # No annotation means its stored pixels, so it is seen as a viewer shows it; a hole file is read alike.
        picture = read_picture(file, upright=True)
        if picture.depth > 8:  # pixels outside the hole would lose their lower half
            raise UnusablePicture(f"has {picture.depth} bits a channel, results have 8; save it with 8 bits")
        if painted:
            pixels, hole, profile = read_painted(picture)
        else:
            pixels, profile = picture.unconverted_HW3, picture.profile
    except UnusablePicture as error:
        raise DataError(f"{file}: {error}") from None
    return Photograph(split_suffix(name)[0], pixels, profile, hole)


def _report_extreme(path: Path, hole_HW: np.ndarray, what: str) -> None:
    if not hole_HW.any():
        logger.warning("warning: %s: %s is empty: nothing changes", path, what)
    elif hole_HW.all():
        logger.warning("warning: %s: %s is full: nothing of the picture is given", path, what)


def _fit_hole(hole_HW: np.ndarray, shape: tuple[int, int], path: str) -> np.ndarray:
    """Return the hole at the picture's (height, width). Raises DataError for one of other proportions.

    A square hole of a picture that is not square lies in the picture's centre square.
    """
    height, width = hole_HW.shape
    # Products, not quotients: proportions are compared exactly.
    if height * shape[1] == width * shape[0]:
        return hole_HW if hole_HW.shape == shape else _resized(hole_HW, shape)
    if height != width:
        raise DataError(
            f"{path}: this hole is {width}x{height}, of another shape than the picture ({shape[1]}x{shape[0]}); give a hole of the "
            "picture's shape, or a square one for its centre square"
        )
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    result = np.zeros(shape, bool)
    result[top : top + side, left : left + side] = _resized(hole_HW, (side, side))
    return result


def _resized(hole_HW: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    # Made smaller, a pixel belongs to the hole where it covers any of it: thin strokes stay whole.
    return shrink_hole(hole_HW, shape) if hole_HW.shape > shape else resize_nearest(hole_HW, shape)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)
