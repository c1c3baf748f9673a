"""Damage to files at random places, and how often tests repeat it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest


def rounds(few: int, many: int) -> pytest.MarkDecorator:
    """Parametrize a test by its number of rounds: `few`, and `many` in `make test-full`."""
    return pytest.mark.parametrize("rounds", [few, pytest.param(many, marks=pytest.mark.full)])


def cut(content: bytearray, at: random.Random) -> None:
    del content[at.randrange(len(content)) :]


def flip(content: bytearray, at: random.Random) -> None:
    content[at.randrange(len(content))] ^= 1 << at.randrange(8)


def blank(content: bytearray, at: random.Random) -> None:
    start = at.randrange(len(content))
    end = min(len(content), start + 4096)
    content[start:end] = at.randbytes(end - start)


def grow(content: bytearray, at: random.Random) -> None:
    content += at.randbytes(at.randrange(1, 4000))


def drop(content: bytearray, at: random.Random) -> None:
    start = at.randrange(len(content))
    del content[start : start + at.randrange(1, 4000)]


DAMAGES = (cut, flip, blank, grow, drop)


def damage(path: Path, how: Callable[[bytearray, random.Random], None], at: random.Random) -> None:
    """Rewrite a file with other bytes than it had."""
    before = path.read_bytes()
    after = bytearray(before)
    while after == before:
        how(after, at)
    path.write_bytes(after)
