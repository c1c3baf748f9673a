import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.report.run_data import read_run
from tests.commands.conftest import call
from tests.faults.test_packing import private_mounts


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    (run / "metrics.json").unlink(missing_ok=True)
    return run


@pytest.fixture
def other(shards, tmp_path: Path) -> Path:
    """The same samples as another data set."""
    folder = Path(shutil.copytree(shards.folder, tmp_path / "other"))
    with (folder / "manifest.json").open("a") as manifest:
        manifest.write("\n")
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "evaluation").glob("*.json"))


def test_an_evaluation_of_other_data_or_settings_replaces_none(run, other):
    assert call("evaluate", run) == 0
    before = (run / "evaluation/test-block.json").read_bytes()
    assert call("evaluate", run, "--data", other) == 0
    assert call("evaluate", run, "--set", "evaluate.samples=3") == 0
    assert (run / "evaluation/test-block.json").read_bytes() == (run / "metrics.json").read_bytes() == before
    data, settings, own = names(run)
    assert own == "test-block.json" and settings.startswith("test-block-settings-")
    assert json.loads((run / "evaluation" / data).read_text())["manifest"].startswith(data[16:24])
    assert json.loads((run / "evaluation" / settings).read_text())["samples"] == 3
    found = read_run(run).evaluations
    assert [bool(item.variant) for item in found] == [False, True, True]
    assert f"other data {data[16:24]}" in found[1].name


def test_without_the_runs_own_evaluation_no_other_heads_the_report_before_it(run, other):
    assert call("evaluate", run, "--data", other) == 0 and call("evaluate", run, "--hole", "O1") == 0
    assert read_run(run).evaluation.variant == ""


def test_an_exported_folder_keeps_the_results_of_each_data_set(run, other, shards, tmp_path):
    model = tmp_path / "model"
    assert call("export", run, "--out", model) == 0
    for data in (shards.folder, other, shards.folder):
        assert call("evaluate", model, "--data", data) == 0
    assert len(names(model)) == 2 and "test-block.json" in names(model)


def test_results_of_a_folder_that_cannot_be_written(run, tmp_path):
    """Refused before anything is scored; --out writes elsewhere, and replaces no file of another model."""
    command = f"mount --bind {run} {run} && mount -o remount,bind,ro {run} && {sys.executable} -m collagan_dist evaluate {run}"
    result = subprocess.run(private_mounts(command), capture_output=True, text=True)
    assert result.returncode == 2 and "Traceback" not in result.stderr and not result.stdout, result.stderr
    assert f"{run}: results cannot be written there (Read-only file system); give --out DIR" in result.stderr
    assert f"collagan export {run} --out DIR" in result.stderr
    out = tmp_path / "results"
    result = subprocess.run(private_mounts(f"{command} --out {out}"), capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == str(out / "test-block.json"), result.stderr
    assert json.loads((out / "test-block.json").read_text())["model"] == str(run)
    assert sorted(path.name for path in out.iterdir()) == ["test-block.json", "test-block.npz", "test-block.png"]


@pytest.mark.parametrize("content", ["{}", "not ours", '{"model": "/another", "split": "test"}'])
def test_a_file_of_another_model_or_program_is_not_replaced(run, tmp_path, capsys, content):
    out = tmp_path / "results"
    out.mkdir()
    (out / "test-block.json").write_text(content)
    assert call("evaluate", run, "--out", out) == 2
    assert f"{out / 'test-block.json'}: is no evaluation of {run}; give another --out" in capsys.readouterr().err
    assert (out / "test-block.json").read_text() == content and len(list(out.iterdir())) == 1
