"""The house of docs/architecture.md: imports go downward only, and each heavy library has one home."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "collagan_dist"
FLOORS = {
    "__init__": 0, "errors": 0, "contract": 0, "counter": 0, "files": 0, "yaml_strict": 0, "strict": 0, "config": 0, "presets": 0,
    "data": 1, "tasks": 1, "models": 1, "objective": 1, "runtime": 1,
    "training": 2, "baselines": 2, "sweep": 3, "report": 3, "reproduce": 3, "doctor": 3, "commands": 4, "__main__": 4,
}  # fmt: skip
# Library: the files or folders (below the package) that may import it.
HOMES = {
    "ray": ("sweep/",), "deepspeed": ("runtime/deepspeed.py",), "nvidia": ("data/decode.py",), "torch.distributed": ("runtime/",),
    "matplotlib": ("report/", "reproduce/"), "jinja2": ("report/",), "webdataset": ("data/verify.py",),
    "onnxruntime": ("training/parser_onnx.py",), "tensorboardX": ("runtime/tensorboard.py",),
    "fsspec": ("data/places.py",), "aiohttp": ("data/places.py",),
}  # fmt: skip
NEVER = {"models": ("World", "yaml"), "report": ("torch",)}


def modules() -> Iterator[tuple[str, str, list[str]]]:
    """(part, file below the package, names of what it imports anywhere in the file)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        names = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                names += [f"{node.module}.{alias.name}" for alias in node.names]
        yield file.split("/")[0].removesuffix(".py"), file, names


def violations(part: str, file: str, names: list[str]) -> Iterator[str]:
    for name in names:
        if name.startswith("collagan_dist."):
            other = name.split(".")[1]
            if other not in FLOORS:  # a name of collagan_dist/__init__.py
                continue
            if FLOORS[other] > FLOORS[part] or (FLOORS[other] == FLOORS[part] == 1 and other != part):
                yield f"{file} imports {name}"
        for library, homes in HOMES.items():
            if (name == library or name.startswith(f"{library}.")) and not any(file.startswith(h) for h in homes):
                yield f"{file} imports {name}, which belongs in {homes}"
        yield from (f"{file} imports {name}" for word in NEVER.get(part, ()) if word in name.split("."))


def test_imports_go_downward() -> None:
    found = [v for part, file, names in modules() for v in violations(part, file, names)]
    assert not found, "\n".join(found)


def test_the_rule_can_fail() -> None:
    assert list(violations("data", "data/x.py", ["collagan_dist.tasks.TASKS"]))
    assert list(violations("tasks", "tasks/x.py", ["collagan_dist.training.loop.train"]))
    assert list(violations("training", "training/x.py", ["nvidia.dali.fn"]))
    assert list(violations("report", "report/x.py", ["torch"]))


@pytest.mark.parametrize("folder", ["shards", "cluster", "slurm"])
def test_recipe_folders_hold_no_python(folder: str) -> None:
    assert not list((PACKAGE.parent / folder).rglob("*.py"))


def test_help_is_light() -> None:
    code = "import sys, collagan_dist.commands.main as m; m.parser(); print([x for x in ('torch', 'numpy', 'pydantic', 'rich') if x in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
