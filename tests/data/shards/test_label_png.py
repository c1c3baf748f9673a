"""Against Pillow, which reads and writes PNGs by other code, and against damage of every byte."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.readers.picture import encode_label_map
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.sample_check import WrongSample
from collagan_dist.types import CLASSES

HEIGHT, WIDTH = 13, 21


def label_map() -> np.ndarray:
    blocks = np.random.default_rng(0).integers(0, len(CLASSES), (5, 6)).astype(np.uint8)
    return np.kron(blocks, np.ones((3, 4), np.uint8))[:HEIGHT, :WIDTH]


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    rows: bytes, width: int = WIDTH, height: int = HEIGHT, kind: bytes = bytes([8, 0, 0, 0, 0]), parts: int = 1
) -> bytes:
    """A PNG of these inflated rows, in several IDAT chunks and with a chunk that says nothing about pixels."""
    packed = zlib.compress(rows)
    at = np.linspace(0, len(packed), parts + 1).astype(int)
    data = b"".join(chunk(b"IDAT", packed[a:b]) for a, b in itertools.pairwise(at))
    head = chunk(b"IHDR", struct.pack(">II", width, height) + kind)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"tEXt", b"a\0b") + data + chunk(b"IEND", b"")


def plain_rows(labels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in labels)


def filtered_rows(labels: np.ndarray, kind: int) -> bytes:
    """The rows under one of PNG's filters 1 to 4 (section 9 of its specification)."""
    above = np.pad(labels, ((1, 0), (1, 0))).astype(int)
    left, up, corner = above[1:, :-1], above[:-1, 1:], above[:-1, :-1]
    estimate = left + up - corner
    distances = np.stack([abs(estimate - left), abs(estimate - up), abs(estimate - corner)])
    nearest = np.choose(distances.argmin(0), [left, up, corner])
    guess = [None, left, up, (left + up) // 2, nearest][kind]
    return b"".join(bytes([kind]) + row.tobytes() for row in ((labels - guess) % 256).astype(np.uint8))


def test_what_packing_and_other_programs_write():
    labels = label_map()
    files = {"ours": encode_label_map(labels), "parts": png(plain_rows(labels), parts=3)}
    files |= {f"filter {kind}": png(filtered_rows(labels, kind)) for kind in (1, 2, 3, 4)}
    for level in (0, 9):
        stream = io.BytesIO()
        Image.fromarray(labels).save(stream, "PNG", compress_level=level)
        files[f"Pillow {level}"] = stream.getvalue()
    for name, content in files.items():
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), labels), name
        found = decode_label_map(np.frombuffer(content, np.uint8), WIDTH, HEIGHT)
        assert found.dtype == np.uint8 and np.array_equal(found, labels), name


def test_every_damaged_byte_is_found():
    """But in its signature of eight bytes, all of a PNG lies under checksums."""
    content = encode_label_map(label_map())
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 0x10
        with pytest.raises(ValueError):
            decode_label_map(bytes(damaged), WIDTH, HEIGHT)
    for length in range(len(content)):
        with pytest.raises(ValueError, match="PNG"):
            decode_label_map(content[:length], WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (plain_rows(label_map())[:-1], "too many rows or too few"),
        (plain_rows(label_map()) + b"\0", "too many rows or too few"),
        (b"\5" + plain_rows(label_map())[1:], "unknown filter"),
        (bytes(10**7), "too many rows or too few"),
    ],
    ids=["short", "long", "filter", "bomb"],
)
def test_rows_that_are_no_label_map_of_this_size(rows, said):
    with pytest.raises(ValueError, match=said):
        decode_label_map(png(rows), WIDTH, HEIGHT)


def test_sound_files_of_another_kind_are_refused_by_what_they_are():
    labels = label_map()
    for content, said in (
        (png(plain_rows(labels[:-1]), height=HEIGHT - 1), "is 21x12, its json says 21x13"),
        (png(plain_rows(labels), kind=bytes([8, 2, 0, 0, 0])), "not grey with 8 bits"),
        (png(plain_rows(labels + 2)), f"the value {labels.max() + 2}; classes are 0 to 10"),
    ):
        with pytest.raises(WrongSample, match=said):
            decode_label_map(content, WIDTH, HEIGHT)


@pytest.mark.parametrize("bits", [8, 4])
def test_indices_of_a_palette_are_the_classes(bits):
    image = Image.fromarray(label_map()).convert("P")
    image.putpalette([0, 0, 0, *range(30)])
    image.save(stream := io.BytesIO(), "PNG", bits=bits)
    assert np.array_equal(decode_label_map(stream.getvalue(), WIDTH, HEIGHT), label_map())
    with pytest.raises(ValueError, match="checksum differs"):
        decode_label_map(stream.getvalue()[:-20] + bytes(20), WIDTH, HEIGHT)
