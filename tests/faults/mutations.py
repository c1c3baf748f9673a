"""Mutations of structured files by a seeded generator: bit flips, cuts, wrong types, huge numbers, depth, missing keys."""

import copy
import json
import random
from typing import Any

from tests.faults.damages import DAMAGES

DEEP = 20_000
# In place of any value: other types, numbers that no field expects, names that lead elsewhere.
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 62, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "9", "../../etc/passwd", "x" * 70_000, [], {}, [[]],
    {"": None}, [1, 2, 3], "\ud800", "\x00",
)  # fmt: skip


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
    kind = at.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    elif kind == 2 and isinstance(node, list):
        node.append(copy.deepcopy(node[key]))
    else:
        node[key] = copy.deepcopy(at.choice(ODD))
    return tree


def mutated_json(content: bytes, at: random.Random) -> bytes:
    """JSON text with one mutation: of its bytes, of its data, or nested deeply."""
    kind = at.randrange(8)
    if kind < 2:
        changed = bytearray(content)
        at.choice(DAMAGES)(changed, at)
        return bytes(changed)
    if kind == 2:
        word = at.choice([b"[", b'{"a":', b"[[],", b'"\\"'])
        return content[: at.randrange(len(content))] + word * DEEP
    text = json.dumps(mutated_tree(json.loads(content), at))
    return text.encode("utf-8", "surrogatepass")
