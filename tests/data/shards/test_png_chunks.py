"""Damage of any byte is seen before a decoder gets the file: DALI crashes on what does not parse."""

import io

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.shards.png_chunks import is_png, read_chunks


def png() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(noise).save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def test_header_and_rows():
    header, packed = read_chunks(np.frombuffer(png(), np.uint8))
    assert header == (7, 9, 8, 2, 0, 0, 0) and len(packed) == 1
    assert is_png(png()) and is_png(np.frombuffer(png(), np.uint8)) and not is_png(b"") and not is_png(b"\xff\xd8\xff")


def test_every_cut_and_every_changed_byte_is_refused():
    content = png()
    for at in range(len(content)):
        with pytest.raises(ValueError, match="PNG"):
            read_chunks(content[:at])
        changed = bytearray(content)
        changed[at] ^= 1
        with pytest.raises(ValueError, match="PNG"):
            read_chunks(bytes(changed))
