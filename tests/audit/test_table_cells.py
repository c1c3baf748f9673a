"""Cells of a reproduction's tables against the evaluations that they come from."""

import json
import shutil

import pytest

from collagan_dist.audit.table_cells import audit_cells
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.results import Results
from collagan_dist.reproduce.tables import make_table
from tests.audit.conftest import AUDITED
from tests.training.small import small


@pytest.fixture
def out(trained, shards, tmp_path):
    """A reproduction whose one run is evaluated with blocks, which give Tables 2 and 3, and at O1."""
    planned = PlannedRun("M_isd", "M_isd", small(shards.folder, **AUDITED), tmp_path, 9, {"block": False, "O1": False})
    shutil.copytree(trained, planned.folder)
    results = Results([planned], shards.hash)
    for number in (1, 2, 3):
        (tmp_path / f"table{number}.json").write_text(json.dumps(make_table(number, results)))
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
