"""The one way in for JSON that a file holds: limits of bytes and depth, one kind of error.

A file may come from anywhere, or be a pipe. What is read is plain data; who asked for it checks what it says.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from collagan_dist import files

MAX_BYTES = 1 << 26  # real files are a thousand times smaller
MAX_DEPTH = 64
# Strings as a whole, also one that does not end, so that brackets in them do not count. Possessive (`++`), and so linear.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{\]}]', re.DOTALL)


class Malformed(ValueError):
    """Text that is not what it should be; the message says where and why."""


def read_json(path: Path, limit: int = MAX_BYTES, nan: bool = False) -> Any:
    """Return the data of a JSON file. Raises OSError, also for what is no regular file, and Malformed.

    With `nan`, numbers that are not finite, which other programs write, are read as None.
    """
    return parse_json(files.read_regular(path, limit), str(path), nan)


def parse_json(content: bytes, where: str, nan: bool = False) -> Any:
    """Return the data of a JSON text. Raises Malformed, whose message begins with `where` and the line."""
    check_depth(content, where)
    try:
        return json.loads(content, parse_constant=(lambda _: None) if nan else _refuse_constant)
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
