"""Mutations of files by a seeded generator: bit flips, cuts, wrong types, huge numbers, depth, missing and doubled keys."""

import copy
import json
import random
import re
from typing import Any

from tests.faults.damages import DAMAGES

DEEP = 20_000
# In place of any value: other types, numbers that no field expects, names that lead elsewhere.
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 62, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "9", "../../etc/passwd", "x" * 70_000, [], {}, [[]],
    {"": None}, [1, 2, 3], "\ud800", "\x00",
)  # fmt: skip


class Again(str):
    """A key that a mapping can hold beside the same one: written out, it is given twice."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys]
    return found


def mutated_tree(tree: Any, at: random.Random) -> Any:
    """A copy of plain data with one place changed, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    node, key = at.choice(places(tree))
    kind = at.randrange(7)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    elif kind == 3 and isinstance(node, dict):
        node[Again(key)] = copy.deepcopy(at.choice(ODD))
    else:
        node[key] = copy.deepcopy(at.choice(ODD))
    return tree


def mutated(content: bytes, at: random.Random, tree: Any = None) -> bytes:
    """A file's bytes with one mutation: of its bytes, of a word, nested deeply, or of the data `tree` that it holds.

    The latter is written as JSON, which is YAML too.
    """
    kind = at.randrange(8)
    if kind < 2:
        changed = bytearray(content)
        at.choice(DAMAGES)(changed, at)
        return bytes(changed)
    if kind == 2:
        opening = at.choice([b"[", b'{"a":', b"[[],", b'"\\"', b"- "])
        return content[: at.randrange(len(content))] + opening * DEEP
    if tree is not None:
        return json.dumps(mutated_tree(tree, at)).encode("utf-8", "surrogatepass")
    word = at.choice(list(re.finditer(rb"[^\s,:]+", content)))
    odd = at.choice([b"", word[0] * 2, word[0] + b" " + word[0], str(at.choice(ODD)).encode("utf-8", "surrogatepass")])
    return content[: word.start()] + odd + content[word.end() :]


def mutated_json(content: bytes, at: random.Random) -> bytes:
    return mutated(content, at, json.loads(content))


def mutated_line(content: bytes, at: random.Random) -> bytes:
    """Lines of JSON with a mutation of one of them."""
    lines = content.splitlines(keepends=True)
    number = at.randrange(len(lines))
    lines[number] = mutated_json(lines[number], at) + b"\n"
    return b"".join(lines)
