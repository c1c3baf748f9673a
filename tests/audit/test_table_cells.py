"""Cells of a reproduction's tables against the evaluations that they come from, and rows of a sweep's against its trials."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from collagan_dist.audit.table_cells import audit_cells, audit_rows
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.tables import make_table
from collagan_dist.sweep.trial import trial_dir
from tests.audit.conftest import AUDITED
from tests.sweep.simulation import Simulation, a_plan
from tests.sweep.test_sweep_table import stored
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


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished sweep, as the driver leaves it."""
    out = tmp_path_factory.mktemp("sweep")
    done = Simulation(a_plan("sync_halving", 9, seed=3), failing=0.2).run()
    stored(out, done.plan, done.trials, "done")
    return out, done


def test_each_row_of_a_sweep_is_its_trials(sweep):
    out, done = sweep
    found = audit_rows(out, [trial_dir(out, trial) for trial in done.trials])
    assert {one.verdict for one in found} == {"equal"} and len(found) == 9
    assert audit_rows(out / "trials", [out / "trials/t000"]) == []  # no sweep


@pytest.mark.parametrize("column", ["psnr", "samples", "optim.generator.lr"])
def test_an_edited_row_is_named(sweep, tmp_path, column):
    out, done = sweep
    copy = Path(shutil.copytree(out, tmp_path / "sweep"))
    with (copy / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    number = next(int(row["trial"]) for row in rows if row["status"] == "done")
    key = column if column in rows[0] else done.plan.space.keys[0]
    rows[number][key] = str(2 * float(rows[number][key]))
    with (copy / "trials.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (found,) = audit_rows(copy, [trial_dir(copy, done.trials[number])])
    assert found.verdict == "differs" and f"trials.csv: trial {number}, {key}: " in found.wrong[0]


def test_a_row_that_is_older_than_its_trial_is_not_comparable(sweep, tmp_path):
    """As after a driver that was killed."""
    out, done = sweep
    copy = Path(shutil.copytree(out, tmp_path / "sweep"))
    lines = (copy / "trials.csv").read_text().splitlines()
    (copy / "trials.csv").write_text("\n".join(lines[:-1]) + "\n")
    (found,) = audit_rows(copy, [trial_dir(copy, done.trials[-1])])
    assert found.verdict == "not comparable"
