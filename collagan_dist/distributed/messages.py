"""What ranks tell one another, as JSON. Nothing that comes over the network is unpickled, so it cannot run code."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np

from collagan_dist import errors
from collagan_dist.errors import ClusterError, CollaganError

MAX_BYTES = 2**31  # of one message; a larger length is not one of ours
_ARRAY = "array"  # the only key of an object that stands for an array
_ARRAY_TYPE = re.compile(r"[<>|=]?[biuf]\d{1,2}")  # numpy's names of booleans and numbers


def encode(value: Any) -> bytes:
    """Return the message. Raises TypeError for what JSON and arrays of numbers cannot say.

    Tuples arrive as lists, numpy's scalars as Python's.
    """
    return json.dumps(_plain(value)).encode()


def decode(message: bytes) -> Any:
    """Return the value of a message. Raises ClusterError if it is none."""
    try:
        return json.loads(message, object_hook=_array_or_dict)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = f"what came from another rank is not a message ({type(error).__name__}); is something else on its ports?"
        raise ClusterError(text) from None


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if not _ARRAY_TYPE.fullmatch(value.dtype.str):
            raise TypeError(f"an array of {value.dtype} cannot be sent to other ranks")
        content = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {_ARRAY: [value.dtype.str, list(value.shape), content]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        wrong = [key for key in value if not isinstance(key, str)]  # JSON would make strings of them
        if wrong or value.keys() == {_ARRAY}:
            raise TypeError(f"the key {(wrong or [_ARRAY])[0]!r} cannot be sent to other ranks")
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{type(value).__name__} cannot be sent to other ranks")


def _array_or_dict(found: dict[str, Any]) -> Any:
    if found.keys() != {_ARRAY}:
        return found
    name, shape, content = found[_ARRAY]
    if not _ARRAY_TYPE.fullmatch(name) or any(size < 0 for size in shape):
        raise ValueError(f"an array of {name}")
    kind = np.dtype(name)
    return np.frombuffer(base64.b64decode(content, validate=True), kind).reshape(shape).copy()


def encode_error(error: CollaganError) -> list[str]:
    """Return an error as a value of a message: the name of its class in errors.py, and its text."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return [name, str(error)]


def decode_error(said: list[str]) -> CollaganError:
    name, text = said
    kinds = {kind.__name__: kind for kind in CollaganError.__subclasses__() if kind.__module__ == errors.__name__}
    return kinds.get(name, ClusterError)(text)
