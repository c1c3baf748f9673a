"""Landmarks, identity and size in the json of a sample that another program wrote."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from collagan_dist import structured
from collagan_dist.types import LANDMARKS

MAX_JSON_BYTES = 1 << 20
# `kps` is insightface's, in the same order.
_POINTS = ("landmarks", "kps")

Points = tuple[tuple[float, float], ...]


class SampleJson(NamedTuple):
    """What a json says: five landmarks, the person, the size of the picture, and the face square as packing stores it."""

    landmarks: Points | None = None
    identity: str | None = None
    size: tuple[int, int] | None = None
    square: list[float] | None = None


def read_sample_json(content: bytes, ignore: tuple[str, ...] = ()) -> SampleJson:
    """Return what is used of a sample's json; keys that are not known are left out. Raises ValueError, which says what is wrong.

    `landmarks` or `kps` are five pairs, ten numbers, or a mapping by the names of the points. Ignored `landmarks` are not looked at, and
    neither is the square that was made of them.
    """
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"its json has {len(content)} bytes, more than {MAX_JSON_BYTES}")
    found = structured.parse_json(content, "its json", nan=True)
    if not isinstance(found, dict):
        return SampleJson()
    if "landmarks" in ignore:
        found = {key: value for key, value in found.items() if key not in (*_POINTS, "square")}
    name = next((name for name in _POINTS if found.get(name) is not None), None)
    identity, square = found.get("identity"), found.get("square")
    size = found.get("width"), found.get("height")
    return SampleJson(
        _points(found[name], name) if name is not None else None,
        str(identity) if isinstance(identity, str | int) and not isinstance(identity, bool) else None,
        (int(size[0]), int(size[1])) if all(isinstance(one, int) for one in size) else None,  # type: ignore[arg-type]
        [float(one) for one in square] if isinstance(square, list) and len(square) == 3 and _numbers(square) else None,
    )


def _points(value: Any, name: str) -> Points:
    if isinstance(value, dict) and set(value) >= set(LANDMARKS):
        value = [value[point] for point in LANDMARKS]
    if isinstance(value, list) and len(value) == 2 * len(LANDMARKS) and _numbers(value):
        value = [value[at : at + 2] for at in range(0, len(value), 2)]
    pairs = isinstance(value, list) and len(value) == len(LANDMARKS)
    if not pairs or not all(isinstance(one, list) and len(one) == 2 and _numbers(one) for one in value):
        shape = f"{len(value)} items" if isinstance(value, list | dict) else "no list"
        raise ValueError(f"{name} of its json has {shape}; needed are five points [x, y]: {', '.join(LANDMARKS)}")
    return tuple((x, y) for x, y in value)


def _numbers(value: list[Any]) -> bool:
    return all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value)
