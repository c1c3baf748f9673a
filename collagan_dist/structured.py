"""The one way in for JSON that a file holds: limits of bytes and depth, typed models, one kind of error.

A file may come from anywhere, or be a pipe. The module that owns a file has its model, a `Record`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
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
# What pydantic calls an alternative of a union, in a path.
_ALTERNATIVE = re.compile(r"str|int|float|bool|none|constrained-\w+|(literal|tuple|list|dict|function-[\w-]+)\[.*\]")
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # of a model, of a dataclass
# What a value must be, by pydantic's name of the error. tests/test_structured.py holds that no model of ours raises another.
_LIST, _MAPPING, _NUMBER, _INTEGER, _TEXT = "a list", "keys and values", "a number", "an integer", "text"
_NEEDS = {
    "int_type": _INTEGER, "int_from_float": _INTEGER, "int_parsing": _INTEGER, "int_parsing_size": "an integer of fewer digits",
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false", "none_required": "null",
    "string_type": _TEXT, "string_unicode": "text in UTF-8", "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_short": "at least {min_length} characters", "string_too_long": "at most {max_length} characters",
    "list_type": _LIST, "tuple_type": _LIST, "set_type": _LIST, "frozen_set_type": _LIST,
    "too_short": "at least {min_length} items", "too_long": "at most {max_length} items",
    "dict_type": _MAPPING, "mapping_type": _MAPPING, "model_type": _MAPPING, "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING,
    "literal_error": "{expected}", "enum": "{expected}",
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}",
    "less_than_equal": "at most {le}", "multiple_of": "a multiple of {multiple_of}",
}  # fmt: skip


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


def parse(content: bytes, model: type[R], where: str, limit: int | None = None) -> R:
    """Return the checked content of a JSON text of at most `limit` bytes. Raises Malformed, whose message begins with `where`."""
    # Read twice: pydantic knows neither keys given twice nor NaN in parts of any type.
    parse_json(content, where, limit=limit)
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


@dataclass(frozen=True)
class Problem:
    """One value that a model refuses: its key path, pydantic's name of the error, what is wrong, and the value (or what holds the key)."""

    path: tuple[str, ...]
    kind: str
    text: str
    value: Any


def problems(error: ValidationError) -> list[Problem]:
    """Return what a model refuses in our own words. The alternatives of a union become one problem."""
    found: dict[tuple[tuple[str, ...], int], Problem] = {}
    for number, one in enumerate(error.errors(include_url=False)):
        # pydantic adds the name of a union's alternative to the path.
        path = tuple(str(part) for part in one["loc"] if not _ALTERNATIVE.fullmatch(str(part)))
        key = (path, number if len(path) == len(one["loc"]) else -1)
        text = _wording(one["type"], one["msg"], one.get("ctx", {}))
        if (before := found.get(key)) is None:
            found[key] = Problem(path, one["type"], text, one["input"])
        elif text not in before.text:
            found[key] = replace(before, text=f"{before.text} or {text.removeprefix('needs ')}")
    return list(found.values())


def _wording(kind: str, message: str, limits: dict[str, Any]) -> str:
    if kind in UNKNOWN_KEY:
        return "unknown key"
    if kind not in _NEEDS:
        return message.removeprefix("Value error, ")
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in limits.items()}
    # Of one there is no plural.
    return re.sub(r" 1 (item|character)s$", r" 1 \1", f"needs {_NEEDS[kind].format_map(shown)}")


def given(problem: Problem) -> str:
    """Return ", is 'abc'" for a message about a value; nothing where the value is the section around a key."""
    value = problem.value
    if not problem.text.startswith("needs ") or problem.kind == "value_error":
        return "" if isinstance(value, dict) else f" (given: {_shown(value)})"
    if isinstance(value, dict | list):
        size = f"has {len(value)}" if problem.kind in ("too_short", "too_long") else ""
        return f", {size or ('is a list' if isinstance(value, list) else 'is keys and values')}"
    return f", is {_shown(value)}"


def _shown(value: Any) -> str:
    """Return a value as YAML and JSON have it, not Python."""
    return f"{json.dumps(value) if value is None or isinstance(value, bool) else repr(value):.{SHOWN}}"


def describe(error: ValidationError) -> str:
    """Return in one line which keys are wrong and why; of many the first ones."""
    texts, found = [], problems(error)
    for one in found[:_MAX_PROBLEMS]:
        key = ".".join(one.path)
        if one.kind == "missing":
            texts.append(f"{key} is missing")
        else:
            shown = given(one) if key or one.kind != "value_error" else ""
            texts.append(f"{f'{key[:SHOWN]}: ' if key else ''}{one.text[: 2 * SHOWN]}{shown}")
    more = len(found) - len(texts)
    return "; ".join(texts) + (f"; and {more} more" if more else "")


def read_json(path: Path, limit: int = MAX_BYTES, nan: bool = False) -> Any:
    """Return the data of a JSON file. Raises OSError, also for what is no regular file, and Malformed.

    With `nan`, numbers that are not finite, which other programs write, are read too.
    """
    return parse_json(files.read_regular(path, limit), str(path), nan)


def parse_json(content: bytes, where: str, nan: bool = False, limit: int | None = None) -> Any:
    """Return the data of a JSON text. Raises Malformed, whose message begins with `where` and the line."""
    if len(content) > (limit := limit or MAX_BYTES):  # what came over the network has no size before
        raise Malformed(f"{where}: has {len(content)} bytes, more than {limit}")
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
