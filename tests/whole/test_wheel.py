"""The wheel alone, installed into a folder of its own, does in another folder what a checkout does."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from collagan_dist.config.project_files import FOLDERS
from tests.conftest import ROOT

RECIPE = (ROOT / "cluster/container.def").read_text()
SMALL = ["--set", "data.image_size=32", "--set", "model.widths.generator=4", "--set", "model.widths.discriminator=4",
         "--set", "schedule.batch=4", "--set", "log.every=1", "--set", "evaluate.samples=4"]  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pip installs of the wheel, without the libraries that it needs."""
    top = tmp_path_factory.mktemp("wheel")
    # Of a copy, since a build leaves folders behind: of what the container is built from.
    copied = RECIPE.partition("%files\n")[2].partition("\n\n")[0]
    for part in (line.split()[0] for line in copied.splitlines()):
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, top / "source" / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (top / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / part, top / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", top, top / "source"], check=True)
    (wheel,) = top.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", top / "installed", wheel], check=True)
    return top / "installed"


def test_the_container_recipe_names_what_is_there():
    """No container is built here: its files, extras, constraints and programs are compared with the project."""
    parts = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", RECIPE, re.MULTILINE | re.DOTALL))
    copied = dict(line.split() for line in parts["files"].splitlines() if line.strip())
    assert all((ROOT / name).exists() and place == f"/opt/project/{name}" for name, place in copied.items())
    constraints, extras = re.search(r"pip install .* -c (\S+) '/opt/project\[(.*)\]'", parts["post"]).groups()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert constraints in copied.values() and set(extras.split(",")) <= set(project["optional-dependencies"])
    programs = {line.split()[0] for line in parts["test"].splitlines() if line.strip()}
    assert programs <= {*project["scripts"], "torchrun", "ray"} and 'exec collagan "$@"' in parts["runscript"]
    # What pip needs to build: the readme and the licence that pyproject.toml names, and its folders.
    assert {project["readme"], *project["license-files"], *FOLDERS, "collagan_dist", "setup.py"} <= set(copied)


@pytest.fixture
def command(installed: Path, tmp_path: Path) -> Callable[..., str]:
    """A command of the installed wheel in another folder, on `ranks`; returns what it printed."""
    env = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    where = "import collagan_dist; print(collagan_dist.__file__)"
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert found.stdout.strip() == str(installed / "collagan_dist/__init__.py")

    def run(*words: object, ranks: int = 0) -> str:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)] if ranks else []
        line = [sys.executable, *launcher, "-m", "collagan_dist", *map(str, words)]
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_wheel_holds_the_package_and_the_top_level_folders(installed):
    project = {f"project/{folder}/{name}": text for folder in FOLDERS for name, text in content(ROOT / folder).items()}
    assert content(installed / "collagan_dist") == content(ROOT / "collagan_dist") | project
    assert {path.name.partition("-")[0] for path in installed.iterdir()} == {"bin", "collagan_dist"}


def test_draw_pack_and_init_in_another_folder(command, tmp_path):
    assert "next: collagan pack drawn --root faces" in command("draw", "faces", "--count", 20, "--workers", 1)
    assert "train: 16 samples" in command("pack", "drawn", "--root", "faces", "--workers", 1)
    assert (tmp_path / "packed/drawn/manifest.json").is_file()
    command("init", "mine")
    assert content(tmp_path / "mine") == {
        f"{folder}/{name}": text for folder in FOLDERS for name, text in content(ROOT / folder).items()
    }


@pytest.mark.full
def test_from_drawn_faces_to_a_sweep(command, tmp_path):
    command("draw", "faces", "--count", 60)
    command("pack", "drawn", "--root", "faces", "--out", "shards", "--set", "store_size=44")
    command("train", "demo", "--data", "shards", "--out", "run", *SMALL, "--set", "schedule.steps=3", ranks=2)
    assert "PSNR in the hole" in command("evaluate", "run", ranks=2)
    command("complete", "run", "faces/Img/img_celeba/000060.jpg", "--out", "completed", "--hole", "block")
    assert (tmp_path / "completed/000060.completed.png").is_file()
    command("report", "run")
    assert (tmp_path / "run/report.html").is_file()
    sweep = ["--data", "shards", "--out", "sweep", "--trials", 2, *SMALL, "--set", "schedule.steps=18"]
    command("sweep", "demo", "--space", "lambda", *sweep)
    assert (tmp_path / "sweep/best.yaml").is_file() and (tmp_path / "sweep/report.html").is_file()
