"""Colour profiles (ICC) of pictures: to sRGB, which the networks see, and back."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

# A profile that moves no colour by more than this is sRGB: cameras and phones embed many forms of it.
_SAME_LEVELS = 2
STRIP_ROWS = 64
_MODES = {"RGB": "RGB", "GRAY": "L"}


def to_srgb(pixels_HW3: np.ndarray, profile: bytes | None) -> np.ndarray:
    """Return uint8 RGB pixels in sRGB. A profile that is damaged, or not of RGB or grey, is ignored as viewers do."""
    return pixels_HW3 if profile is None or is_srgb(profile) else _apply(pixels_HW3, profile, forward=True)


def from_srgb(pixels_HW3: np.ndarray, profile: bytes | None, grey: bool = False) -> np.ndarray:
    """Return sRGB pixels in the colours of a profile, the inverse of `to_srgb` where the profile holds the colour.

    They are for a picture that is `grey`, or not: a profile of grey is used for such a picture alone.
    """
    if profile is None or is_srgb(profile) or (_mode(profile) == "L") != grey:
        return pixels_HW3
    return _apply(pixels_HW3, profile, forward=False)


def is_grey(pixels_HW3: np.ndarray, profile: bytes | None) -> bool:
    """Return whether a picture is grey and has a profile of grey."""
    return profile is not None and _mode(profile) == "L" and _has_no_colour(pixels_HW3)


def describes(profile: bytes, grey: bool) -> bool:
    """Return whether a profile is one for grey pictures, or one for all others."""
    return (_mode(profile) == "L") == grey


def _has_no_colour(pixels_HW3: np.ndarray) -> bool:
    return all((rows == rows[..., :1]).all() for rows in pixels_HW3)


@lru_cache(64)
def is_srgb(profile: bytes) -> bool:
    """Return whether converting from the profile to sRGB changes next to nothing."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, 81, 3)
    if _mode(profile) == "L":
        colours = np.repeat(colours[..., :1], 3, axis=-1)
    return int(np.abs(_apply(colours, profile, forward=True).astype(int) - colours).max()) <= _SAME_LEVELS


def _apply(pixels_HW3: np.ndarray, profile: bytes, forward: bool) -> np.ndarray:
    if (transform := _transform(profile, forward)) is None:
        return pixels_HW3
    grey = _mode(profile) == "L"
    # A grey profile says nothing of colours.
    if grey and forward and not _has_no_colour(pixels_HW3):
        return pixels_HW3
    done_HW3 = np.empty(pixels_HW3.shape, np.uint8)
    # In strips of rows: of the whole picture, there would be five copies.
    for top in range(0, len(pixels_HW3), STRIP_ROWS):
        rows = np.ascontiguousarray(pixels_HW3[top : top + STRIP_ROWS])
        strip = ImageCms.applyTransform(Image.fromarray(rows[..., 0] if grey and forward else rows), transform)
        assert strip is not None  # it is for transforms in place
        done_HW3[top : top + STRIP_ROWS] = np.asarray(strip.convert("RGB"))
    return done_HW3


@lru_cache(64)
def _transform(profile: bytes, forward: bool) -> ImageCms.ImageCmsTransform | None:
    mode = _mode(profile)
    if mode is None:
        return None
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    try:
        # Both: a profile that leads one way only, as some of scanners, is not used.
        there = ImageCms.buildTransform(own, srgb, mode, "RGB", intent, flags)
        back = ImageCms.buildTransform(srgb, own, "RGB", mode, intent, flags)
    except ImageCms.PyCMSError:
        return None
    return there if forward else back


@lru_cache(64)
def _mode(profile: bytes) -> str | None:
    """Return Pillow's mode of the pictures that a profile describes; None for one that is not used."""
    try:
        return _MODES.get(ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip())
    except (ImageCms.PyCMSError, OSError):
        return None
