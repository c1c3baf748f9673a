"""Cells of a reproduction's tables against the evaluations that they come from."""

import json
import shutil
from pathlib import Path

import pytest

from collagan_dist.audit.table_cells import audit_cells
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.tables import make_table
from tests.audit.conftest import AUDITED
from tests.training.small import small


def reproduce(out: Path, manifest: str, runs: list[PlannedRun]) -> None:
    results = Results(runs, manifest)
    for number in (1, 2, 3):
        (out / f"table{number}.json").write_text(json.dumps(make_table(number, results)))


def planned(shards: Manifest, out: Path, name: str) -> PlannedRun:
    return PlannedRun(name, "M_isd", small(shards.folder, **AUDITED), out, 9, {"block": False, "O1": False})


@pytest.fixture
def out(trained, shards, tmp_path):
    """A reproduction whose one run is evaluated with blocks, which give Tables 2 and 3, and at O1."""
    run = planned(shards, tmp_path, "M_isd")
    shutil.copytree(trained, run.folder)
    reproduce(tmp_path, shards.hash, [run])
    return tmp_path


def test_cells_are_those_of_the_evaluation(out):
    run = out / "runs/M_isd"
    block, first = (audit_cells(out, run, run / f"evaluation/test-{hole}.json") for hole in ("block", "O1"))
    assert (block.verdict, first.verdict) == ("equal", "equal")
    # Points and their mean; classes that the samples show, and theirs; of Table 1 one column, not blended.
    assert int(block.compared.split()[0]) > 10 and first.compared == "2 cells"


@pytest.mark.parametrize(("number", "column"), [(1, "O4"), (2, "average"), (3, "nose")])
def test_an_edited_cell_is_named(out, number, column):
    path, run = out / f"table{number}.json", out / "runs/M_isd"
    table = json.loads(path.read_text())
    cell = table["cells"]["M_isd"][column]
    (cell["psnr"] if number == 1 else cell)["ours"] = 99.0
    path.write_text(json.dumps(table))
    found = audit_cells(out, run, run / f"evaluation/test-{'O1' if number == 1 else 'block'}.json")
    assert found.verdict == "differs" and f"table{number}.json: M_isd, {column}" in found.wrong[0]
    assert "[99.0]" in found.wrong[0]


def test_of_several_seeds_each_is_found_and_the_mean_is_theirs(out, shards):
    runs = [planned(shards, out, name) for name in ("M_isd", "M_isd-seed1")]
    shutil.copytree(runs[0].folder, runs[1].folder)
    evaluation = runs[1].folder / "evaluation/test-O1.json"
    metrics = json.loads(evaluation.read_text())
    metrics["psnr"] += 1.0
    evaluation.write_text(json.dumps(metrics))
    reproduce(out, shards.hash, runs)
    for run in runs:
        assert audit_cells(out, run.folder, run.folder / "evaluation/test-O1.json").verdict == "equal"
    path = out / "table1.json"
    table = json.loads(path.read_text())
    table["cells"]["M_isd"]["O4"]["psnr"]["ours"] += 0.1
    path.write_text(json.dumps(table))
    found = audit_cells(out, runs[1].folder, evaluation)
    assert found.verdict == "differs" and "where its seeds' mean is " in found.wrong[0]
