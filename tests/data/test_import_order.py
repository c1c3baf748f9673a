"""Imports inside data/ go one way: face_square, readers, shards, then packing and loading."""

import ast
from pathlib import Path

import collagan_dist.data

FOLDER = Path(collagan_dist.data.__file__).parent
MAY_IMPORT = {
    "__init__": set(),
    "face_square": set(),
    "readers": {"face_square"},
    "shards": set(),
    "packing": {"face_square", "readers", "shards"},
    "loading": {"face_square", "readers", "shards"},
}


def imported(path: Path) -> set[str]:
    """Parts of data/ that a file imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = [f"{node.module}.{alias.name}".split(".") for node in nodes for alias in node.names]
    return {name[2] for name in names if name[:2] == ["collagan_dist", "data"]}


def test_imports_inside_data_go_one_way():
    for path in sorted(FOLDER.rglob("*.py")):
        part = path.relative_to(FOLDER).parts[0].removesuffix(".py")
        assert imported(path) <= MAY_IMPORT[part] | {part}, path
        assert path.name != "__init__.py" or not imported(path), f"{path}: __init__ files import nothing"
