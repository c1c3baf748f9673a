"""The structure of docs/architecture.md: imports go downward only, never sideways, never in a circle; each heavy library has one home."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "collagan_dist"
# From the bottom to the top. A part imports from the rows below its own; parts of one row know nothing of each other.
ROWS = (
    ("urls",),
    ("callable_package", "types", "errors", "log", "units", "rng", "shell", "presets"),
    ("files",),
    ("structured", "places"),
    ("config",),
    ("faces", "data", "tasks", "losses", "distributed"),
    ("runs",),
    ("models",),
    ("setup",),
    ("inference",),
    ("training",),
    ("report", "doctor"),
    ("sweep", "serve", "plan"),
    ("reproduce",),
    ("audit",),
    ("api",),
    ("commands",),
    ("__main__", "__init__"),  # the package's face names what the interface offers
)
FLOOR = {part: number for number, row in enumerate(ROWS) for part in row}
# Library: the files or folders (below the package) that may import it.
HOMES = {
    "ray": ("sweep/",), "deepspeed": ("distributed/deepspeed.py",), "torch.distributed": ("distributed/",),
    "nvidia": ("data/loading/dali_pipeline.py",),
    "matplotlib": (), "vl_convert": ("report/vega.py",),
    "jinja2": ("report/",), "webdataset": ("data/shards/verify.py", "data/shards/pipeline.py"),
    "onnxruntime": ("inference/parser_onnx.py",), "tensorboardX": ("runs/tensorboard.py",),
    "skimage": ("inference/face_detector.py",),
    "wandb": ("runs/wandb_sink.py",), "mlflow": ("runs/mlflow_sink.py",),
    "shlex": ("shell.py", "reproduce/slurm.py"), "fsspec": ("places.py",), "aiohttp": ("places.py", "serve/"),
    **dict.fromkeys(["pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"], ()),  # they run what a file says
}  # fmt: skip
# Files or folders, and words that none of their imports may contain.
NEVER = {
    "models/generator.py": ("World", "yaml", "files"), "models/discriminator.py": ("World", "yaml", "files"),
    "models/gfc_networks.py": ("World", "yaml", "files"), "models/layers.py": ("World", "yaml", "files"),
    "report/": ("torch",),
    # A scheduler is a function of the plan and the trials.
    "sweep/schedule.py": ("os", "time", "random", "pathlib", "files", "runs", "config"),
}  # fmt: skip

# Inside data/: what each part may import of the others.
DATA_PARTS = {
    "__init__": set(), "face_square": set(), "readers": {"face_square"}, "shards": {"face_square"},
    "packing": {"face_square", "readers", "shards"}, "loading": {"face_square", "readers", "shards"},
}  # fmt: skip


def imports(path: Path) -> list[str]:
    """Every name that a file imports, anywhere in it, as a dotted path."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


FILES = {path.relative_to(PACKAGE).as_posix(): imports(path) for path in sorted(PACKAGE.rglob("*.py"))}


def violations(file: str, names: list[str]) -> Iterator[str]:
    part = file.split("/")[0].removesuffix(".py")
    for name in names:
        other = name.split(".")[1] if name.startswith("collagan_dist.") else part
        if other != part and other in FLOOR and FLOOR[other] >= FLOOR[part]:  # else a name of collagan_dist/__init__.py
            yield f"{file} imports {name}"
        for library, homes in HOMES.items():
            if (name == library or name.startswith(f"{library}.")) and not file.startswith(homes):
                yield f"{file} imports {name}, which belongs in {homes}"
        words = [word for place, never in NEVER.items() if file.startswith(place) for word in never]
        yield from (f"{file} imports {name}" for word in words if word in name.split("."))


def test_imports_go_downward():
    found = [violation for file, names in FILES.items() for violation in violations(file, names)]
    assert not found, "\n".join(found)


def test_imports_inside_data_go_one_way():
    for file, names in FILES.items():
        if file.startswith("data/"):
            part = file.split("/")[1].removesuffix(".py")
            found = {name.split(".")[2] for name in names if name.startswith("collagan_dist.data.")}
            allowed = set() if file.endswith("__init__.py") else DATA_PARTS[part] | {part}
            assert found <= allowed, file


def test_the_rule_can_fail():
    assert list(violations("data/x.py", ["collagan_dist.tasks.TASKS"]))
    assert list(violations("tasks/x.py", ["collagan_dist.training.loop.train"]))
    assert list(violations("training/x.py", ["nvidia.dali.fn"]))
    assert list(violations("report/x.py", ["torch"])) and list(violations("runs/x.py", ["os", "pickle"]))
    assert list(violations("doctor/x.py", ["collagan_dist.report.page"]))
    assert not list(violations("training/x.py", ["collagan_dist.inference.evaluate", "collagan_dist.__version__"]))


def edges() -> dict[str, set[str]]:
    module = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in FILES}
    found = {}
    for name, file in module.items():
        dotted = {target.removeprefix("collagan_dist.") for target in FILES[file]}
        # `from a.b import c` runs a.b, and a.b.c where that is a module.
        found[name] = (dotted | {target.rpartition(".")[0] for target in dotted}) & module.keys() - {name}
    return found


def test_no_import_cycle():
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_two_way_edge_between_packages():
    pairs = {(a.split(".")[0], b.split(".")[0]) for a, targets in edges().items() for b in targets}
    both = [f"{a} <-> {b}" for a, b in pairs if a < b and (b, a) in pairs]
    assert not both, both


@pytest.mark.parametrize("folder", ["shards", "cluster", "slurm"])
def test_recipe_folders_hold_no_python(folder):
    assert not list((PACKAGE.parent / folder).rglob("*.py"))


def test_help_is_light():
    code = (
        "import sys; from collagan_dist.commands.main import build_parser; build_parser(); "
        "print([x for x in ('torch', 'numpy', 'pydantic', 'rich') if x in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
