"""The Python interface: its examples and notebook run as they are printed, and it gives what the commands give."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import collagan_dist as cd
from collagan_dist.config.tree import Config
from tests.conftest import ROOT, collagan
from tests.training.small import small


def run_blocks(blocks: list[str], folder: Path, where: str) -> dict:
    """Run code in one namespace, in a folder; shorter than printed, by the numbers of faces and steps alone."""
    code = "\n".join(blocks)
    for printed, shorter in (("count=400", "count=40"), ('"schedule.steps": 200', '"schedule.steps": 2')):
        assert printed in code
        code = code.replace(printed, shorter)
    namespace: dict = {"__name__": where}
    before = Path.cwd()
    try:
        os.chdir(folder)
        exec(compile(code, where, "exec"), namespace)
    finally:
        os.chdir(before)
    return namespace


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the faces of the examples, packed."""
    folder = tmp_path_factory.mktemp("python")
    cd.draw(folder / "faces", count=40, seed=7)
    collagan("pack", ROOT / "shards/drawn.yaml", "--root", "faces", "--out", "packed/drawn", cwd=folder)
    return folder


def test_the_page(packed):
    page = (ROOT / "docs/python.md").read_text()
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    found = run_blocks([re.sub("^    ", "", block, flags=re.MULTILINE) for block in blocks], packed, "python.md")
    assert (
        found["result"]["step"] == 2 and found["result"]["schedule.steps"] == 2 and found["result"]["preset"] == "demo"
    )
    assert found["rows"][0]["psnr_hole"] == pytest.approx(found["metrics"]["psnr_hole"])
    outside = ~found["hole"]
    assert np.array_equal(found["completed"][outside], found["image"][outside])
    assert (packed / "first.html").is_file() and len(found["landmarks"]) == 5
    assert found["labels"].shape == outside.shape and found["points"].shape == (5, 2)


def test_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "work").mkdir()
    (tmp_path / "shards").symlink_to(ROOT / "shards")
    cells = json.loads((ROOT / "docs/python.ipynb").read_text())["cells"]
    blocks = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)  # no results are stored in it
    found = run_blocks(blocks, tmp_path / "work", "python.ipynb")
    assert found["result"]["step"] == 2 and (tmp_path / "work/completed.png").is_file()


def test_the_import_is_light():
    code = (
        "import sys, time; began = time.perf_counter(); import collagan_dist as cd; seconds = time.perf_counter() - began; "
        "print(seconds < 0.1, [x for x in ('torch', 'numpy', 'pydantic', 'rich') if x in sys.modules]); "
        "cd.errors, cd.report, cd.draw, cd.webdataset; print('torch' in sys.modules); "
        "print([x for x in cd.__all__ if not hasattr(cd, x)], set(cd.__all__) <= set(dir(cd)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["True []", "False", "[] True"]
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        cd.nothing  # noqa: B018


@pytest.mark.parametrize("first", ["import collagan_dist.report.page, collagan_dist.runs.layout", "pass"])
def test_names_of_packages_are_functions_whoever_imports_first(first, tmp_path):
    code = f"""{first}
import collagan_dist as cd
for function in (cd.runs, cd.report):
    try:
        function({str(tmp_path)!r})
    except cd.errors.DataError as error:
        print(error)"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path}: there is no run in it") and "no config.yaml in it" in lines[1]


def test_a_training_is_that_of_the_command(shards, tmp_path):
    """The same files, byte by byte; and a Config is taken as it is."""
    config = small(shards.folder, schedule__steps=2)
    row = cd.train(config, tmp_path / "function")
    collagan("train", tmp_path / "function/config.yaml", "--run", tmp_path / "command")
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "checkpoints/step-00000002").glob("*.safetensors")}
        for name in ("function", "command")
    )
    assert one == other and len(one) == 4
    assert row == cd.runs(tmp_path)[1] and row["name"] == "function"
    # The same call continues; more steps are a setting.
    assert cd.train(config, tmp_path / "function", settings={"schedule.steps": 3})["step"] == 3
    metrics = cd.evaluate(tmp_path / "function", split="valid", hole="O1", settings={"evaluate.samples": 4})
    (stored,) = (tmp_path / "function/evaluation").glob("valid-O1-settings-*.json")
    assert metrics == json.loads(stored.read_text()) and metrics["samples"] == 4


def test_errors_are_those_of_the_package(shards, tmp_path):
    ConfigError = cd.errors.ConfigError
    for call, kind, message in (
        (lambda: cd.train("demo", tmp_path / "run"), ConfigError, "data.shards is not set"),
        (lambda: cd.train("dmo", tmp_path / "run"), ConfigError, "did you mean demo"),
        (lambda: cd.train("demo", tmp_path / "run", settings={"optim.lr": 1}), ConfigError, "there is no key optim.lr"),
        (lambda: cd.train("demo", tmp_path / "run", settings={"seed": object()}), ConfigError, "give numbers, texts"),
        (lambda: cd.train(Config(), tmp_path / "run", model="M_i"), ConfigError, "a Config has its model"),
        (lambda: cd.evaluate(tmp_path, hole="O7"), ConfigError, "'O7' is not a kind of hole"),
        (lambda: cd.evaluate(tmp_path, blend="mean"), ConfigError, "'mean' is not a kind of blend"),
        (lambda: cd.webdataset(tmp_path), cd.errors.DataError, "manifest.json"),
        (lambda: cd.webdataset(shards.folder, "tain"), cd.errors.DataError, "there is no split 'tain'"),
        (lambda: cd.draw(tmp_path / "faces", count=0), ConfigError, "the count must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(kind, match=re.escape(message)):
            call()
    assert not list(tmp_path.iterdir())
