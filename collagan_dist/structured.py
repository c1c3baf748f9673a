"""The one way in for JSON that a file holds: limits of bytes and depth, typed models, one kind of error.

A file may come from anywhere, or be a pipe. The module that owns a file has its model, a `Record`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collagan_dist import files
from collagan_dist.errors import CollaganError

MAX_BYTES = 1 << 26  # real files are a thousand times smaller
MAX_DEPTH = 64
# Strings as a whole, also one that does not end, so that brackets in them do not count. Possessive (`++`), and so linear.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)
# Escapes in their order, with a group for surrogates that are no pair: pydantic, in Rust, has no such strings.
_ESCAPES = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
_MAX_PROBLEMS = 3  # that a message names
SHOWN = 80  # characters of a value in a message


class Malformed(ValueError):
    """Text that is not what it should be; the message says where and why."""


class Record(BaseModel):
    """The content of a JSON file, or a part of it. Types are strict; keys that it does not know, of newer programs, are left out."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)


# A number that every reader of JSON has exactly.
Count = Annotated[int, Field(ge=0, lt=1 << 53)]

# A model may also be a RootModel, of a file that holds a list.
R = TypeVar("R", bound=BaseModel)


def read(path: Path, model: type[R], kind: type[CollaganError], mend: str) -> R:
    """Return the checked content of a JSON file. Raises `kind`, whose message ends with `mend`."""
    try:
        return read_record(path, model)
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except Malformed as error:
        raise kind(f"{error}; {mend}") from None


def find(path: Path, model: type[R]) -> R | None:
    """Return the checked content of a JSON file; None where there is none that can be read as such."""
    try:
        return read_record(path, model)
    except (OSError, Malformed):
        return None


def read_record(path: Path, model: type[R], limit: int = MAX_BYTES) -> R:
    """Return the checked content of a JSON file. Raises OSError and Malformed, which names file and key."""
    return parse(files.read_regular(path, limit), model, str(path))


def parse(content: bytes, model: type[R], where: str) -> R:
    """Return the checked content of a JSON text. Raises Malformed, whose message begins with `where`."""
    # Read twice: pydantic knows neither keys given twice nor NaN in parts of any type.
    parse_json(content, where)
    return check(content, model, where)


def validate(data: Any, model: type[R], where: str) -> R:
    """Return plain data as a checked model. Raises Malformed, whose message begins with `where`."""
    # By way of JSON: pydantic's strict mode takes a list for a tuple from JSON, but not from Python objects.
    return check(json.dumps(data).encode(), model, where)


def check(content: bytes, model: type[R], where: str) -> R:
    """Return the content of a JSON text that `parse_json` has seen, or that is small, as a checked model. Raises Malformed.

    Names of files may be of any bytes, which json writes as surrogates; in a model a question mark stands for each.
    """
    if b"\\u" in content:
        content = _ESCAPES.sub(lambda escape: b"?" if escape[1] else escape[0], content)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise Malformed(f"{where}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Return in one line which keys are wrong and why; of many the first ones."""
    texts = []
    for one in error.errors(include_url=False)[:_MAX_PROBLEMS]:
        key, text = ".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")
        if one["type"] == "missing":
            texts.append(f"{key} is missing")
        else:
            given = "" if not key or isinstance(one["input"], dict | list) else f" (given: {one['input']!r:.{SHOWN}})"
            texts.append(f"{key[:SHOWN]}: {text[: 2 * SHOWN]}{given}" if key else text)
    more = error.error_count() - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def read_json(path: Path, limit: int = MAX_BYTES, nan: bool = False) -> Any:
    """Return the data of a JSON file. Raises OSError, also for what is no regular file, and Malformed.

    With `nan`, numbers that are not finite, which other programs write, are read too.
    """
    return parse_json(files.read_regular(path, limit), str(path), nan)


def parse_json(content: bytes, where: str, nan: bool = False) -> Any:
    """Return the data of a JSON text. Raises Malformed, whose message begins with `where` and the line."""
    if len(content) > MAX_BYTES:  # what came over the network has no size before
        raise Malformed(f"{where}: has {len(content)} bytes, more than {MAX_BYTES}")
    check_depth(content, where)
    try:
        return json.loads(
            content,
            parse_constant=(lambda _: math.nan) if nan else _refuse_constant,
            parse_float=float if nan else _finite,
            object_pairs_hook=_once,
        )
    except json.JSONDecodeError as error:
        raise Malformed(f"{where}:{error.lineno}: is no JSON ({error.msg})") from None
    except ValueError as error:  # no UTF-8, a number of thousands of digits, NaN
        raise Malformed(f"{where}: is no JSON ({error})") from None


def check_depth(content: bytes, where: str) -> None:
    """Raise Malformed for brackets that are nested deeper than any file of ours."""
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(content):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > MAX_DEPTH:
            line = content.count(b"\n", 0, token.start()) + 1
            raise Malformed(f"{where}:{line}: is nested more than {MAX_DEPTH} deep")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text[:SHOWN]} is too large a number")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. Raises ValueError for a key that is given twice: readers disagree about which of the two counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        raise ValueError(f"key {times.most_common(1)[0][0]:.{SHOWN}} is given twice")
    return found
