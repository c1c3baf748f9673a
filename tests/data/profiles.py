"""Colour profiles for tests."""

import struct

from PIL import ImageCms


def adobe_rgb() -> bytes:
    """A wide RGB profile, made from sRGB's by other primaries: bytes of its rXYZ, gXYZ and bXYZ tags."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", content, 128)[0]
    primaries = {
        b"rXYZ": (0.60974, 0.31111, 0.01947),
        b"gXYZ": (0.20528, 0.62567, 0.06087),
        b"bXYZ": (0.14919, 0.06322, 0.74457),
    }
    for entry in range(count):
        tag, offset, _ = struct.unpack_from(">4sII", content, 132 + 12 * entry)
        if tag in primaries:
            struct.pack_into(">3i", content, offset + 8, *(round(v * 65536) for v in primaries[tag]))
    return bytes(content)
