"""Formats of pictures by the first bytes of a file, and which of them can be read."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from PIL import features

# Of names that are pictures without a look at their content. Reading such a file says what is wrong with it.
PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".gif", ".jxl", ".jp2", ".psd",
)  # fmt: skip
# Of names that are no pictures without a look: a data set may have hundreds of thousands of such files.
OTHER_SUFFIXES = (
    ".txt", ".csv", ".json", ".jsonl", ".xml", ".md", ".html", ".yaml", ".yml", ".mat", ".npy", ".npz", ".pts", ".pt", ".zip", ".tar",
)  # fmt: skip

# NAME_mask.png or NAME_mask001.png is the hole of NAME, as other inpainting tools store it beside the picture.
_MASK_STEM = re.compile(r"(.+)_mask\d*")
SIGNATURE_BYTES = 32  # enough of a file's head for `picture_format`
# Offset and bytes by which formats of pictures are known, readable or not.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"), (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"BM", "BMP"), (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "BigTIFF"), (0, b"MM\0+", "BigTIFF"),
    (0, b"GIF8", "GIF"), (0, b"8BPS", "Photoshop"), (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL ", "JPEG XL"),
    (4, b"jP  ", "JPEG 2000"), (4, b"ftypcrx", "Canon raw"), (0, b"qoif", "QOI"),
)  # fmt: skip
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def picture_format(head: bytes) -> str | None:
    """Return the name of the picture format that a file's first bytes show, None for a file that is no picture."""
    if head[4:8] == b"ftyp":  # a box of ISO media files: the brand and its relatives follow
        brands = [head[i : i + 4] for i in (8, *range(16, SIGNATURE_BYTES, 4))]
        # An AVIF names mif1 too, so it comes first.
        for known, name in ((_AVIF_BRANDS, "AVIF"), (_HEIF_BRANDS, "HEIF")):
            if any(brand in known for brand in brands):
                return name
    return next((name for at, magic, name in _SIGNATURES if head[at : at + len(magic)] == magic), None)


def split_suffix(name: str) -> tuple[str, str]:
    """Return a name without its suffix, and the suffix with its dot, as pathlib has them at a tenth of its cost."""
    stem, suffix = posixpath.splitext(name)
    return (stem, suffix) if suffix != "." else (name, "")


def masked_name(name: str) -> str | None:
    """Return the picture, with its folder and without a suffix, whose mask a file's name says it is; None for another name."""
    match = _MASK_STEM.fullmatch(split_suffix(name)[0]) if "_mask" in name else None
    return match[1] if match else None


def split_masks(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return names of pictures, and of masks that lie beside the picture they name."""
    names = list(names)
    pictures = {name: masked for name in names if (masked := masked_name(name)) is not None}
    stems = {split_suffix(name)[0] for name in names} if pictures else set()
    masks = {name for name, masked in pictures.items() if masked in stems}
    return [name for name in names if name not in masks] if masks else names, sorted(masks)


def is_grey_png(head: bytes) -> bool:
    """Return whether a PNG begins as one of grey pixels without opacity."""
    return head[25:26] == b"\0"  # the colour type of the IHDR chunk


def readable_formats() -> tuple[str, ...]:
    """Return the formats that can be read here. AVIF depends on how Pillow was built, HEIF on the extra `heif`."""
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
        heif: tuple[str, ...] = ("HEIF",)
    except ImportError:
        heif = ()
    return ("JPEG", "PNG", "BMP", "WEBP", "TIFF", *(["AVIF"] if features.check("avif") else []), *heif)


FORMATS = readable_formats()


def unreadable(form: str) -> str:
    """Return the reason why a picture of a known format is left out."""
    hint = "; pip install 'collagan_dist[heif]'" if form == "HEIF" else ""
    return f"is {form}, which is not read{hint or '; convert it to PNG or JPEG'}"
