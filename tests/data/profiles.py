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


def grey_profile(gamma: float) -> bytes:
    """A profile of grey (ICC 2) whose values are light to this power."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"grey\0" + bytes(79)
    name += bytes(-len(name) % 4)
    tags, at = b"", 128 + 4 + 12 * 3
    for sign, body in ((b"wtpt", white), (b"kTRC", curve), (b"desc", name)):
        tags += sign + struct.pack(">II", at, len(body))
        at += len(body)
    head = struct.pack(">I4sI4s4s4s12x4s", at, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + tags + white + curve + name
