"""What is chosen, and what an audit as a whole says."""

import json
import os
import shutil

import pytest

from collagan_dist.audit.audit import Audit, AuditRequest, audit
from collagan_dist.audit.finding import AuditFinding
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.audit.conftest import AUDITED
from tests.audit.test_stretches import checkpoint, contents
from tests.audit.test_table_cells import out  # noqa: F401, a fixture
from tests.conftest import ROOT
from tests.runs.run_folders import rewrite_state
from tests.training.small import small


def steps(found: Audit) -> list[str]:
    return [one.subject for one in found.findings]


def test_what_is_chosen_follows_from_the_seed(trained):
    request = AuditRequest(4, stretches=0, evaluations=1, ranks=(1,))
    first, second = audit(trained, request), audit(trained, request)
    assert first == second and first.verdict == "passed" and len(first.findings) == 1
    everything = audit(trained, AuditRequest(4, stretches=9, evaluations=9, ranks=(1,)))
    assert steps(everything)[:3] == ["steps 0 to 3", "steps 3 to 6", "steps 6 to 9"]
    assert sorted(steps(everything)[3:]) == ["test-O1", "test-block"]
    assert json.loads(json.dumps(everything.as_dict()))["findings"][0]["verdict"] == "equal"


def test_the_beginning_of_a_long_run_is_not_chosen_unless_it_may_be(run):
    shutil.rmtree(run / "checkpoints/step-00000003")
    alone = {"evaluations": 0, "ranks": (1,)}
    found = audit(run, AuditRequest(0, stretches=9, **alone))
    assert steps(found) == ["steps 6 to 9"]
    assert found.notes[0].startswith("steps 0 to 6: longer than the stretches between checkpoints; --max-steps 6 ")
    assert steps(audit(run, AuditRequest(0, stretches=9, max_steps=6, **alone))) == ["steps 0 to 6", "steps 6 to 9"]
    with pytest.raises(ConfigError, match="the shortest has 3 steps"):
        audit(run, AuditRequest(0, max_steps=2, **alone))


def test_a_stretch_in_which_a_trial_took_networks_of_another_is_not_chosen(run):
    """PBT puts the other trial's checkpoint in the place of the trial's own, which trained none of the way to it."""
    lineage = [{"at": 6 * 4, "from": 2, "values": {}}]
    (run / "trial.json").write_text(json.dumps({"number": 1, "batch": 4, "lineage": lineage}))
    found = audit(run, AuditRequest(0, stretches=9, evaluations=0, ranks=(1,)))
    assert steps(found) == ["steps 0 to 3", "steps 6 to 9"] and found.verdict == "passed"
    assert found.notes == ("steps 3 to 6: its networks were taken from trial 2 at step 6",)


def test_runs_of_a_reproduction_with_their_tables(out):  # noqa: F811
    found = audit(out, AuditRequest(0, stretches=1, evaluations=2, ranks=(1,)))
    assert found.verdict == "passed" and all(one.subject.startswith("M_isd: ") for one in found.findings)
    assert sum(one.subject == "M_isd: tables" for one in found.findings) == 2


def test_copies_of_a_run_in_another_place_are_left_alone(shards, tmp_path):
    """A training again must neither copy its checkpoints there nor take up the run's, which would equal themselves."""
    run, place = tmp_path / "run", tmp_path / "place"
    train(small(shards.folder, **AUDITED | {"schedule__steps": 3}, checkpoint__copy_to=str(place)), run, World())
    before = contents(place)
    assert audit(run, AuditRequest(0, evaluations=0, ranks=(1,))).verdict == "passed"
    assert contents(place) == before and any("step-00000003" in name for name in before)


def test_each_stretch_is_trained_on_the_ranks_that_it_was(run):
    """Not on those of the newest checkpoint: a run may go on on more ranks or fewer."""
    told: list[str] = []
    for step, ranks in ((3, 1), (6, 2), (9, 1)):
        rewrite_state(checkpoint(run, step), lambda state, ranks=ranks: state["machine"].update(ranks=ranks))
        (checkpoint(run, step) / "generator.safetensors").write_bytes(b"")  # so that nothing need be trained
    found = audit(run, AuditRequest(0, stretches=9, evaluations=0), told.append)
    assert {one.verdict for one in found.findings} == {"damaged"}
    own = min(2, len(os.sched_getaffinity(0)))
    assert told[1:] == [f"steps 3 to 6 on {own} rank(s)", "steps 6 to 9 on 1 rank(s)"]


def test_nothing_to_audit_says_why(trained):
    with pytest.raises(ConfigError, match="nothing to audit; --stretches and --evaluations are 0"):
        audit(trained, AuditRequest(0, stretches=0, evaluations=0))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no run folder"):
        audit(tmp_path, AuditRequest(0))
    (tmp_path / "config.yaml").write_text("")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="holds no checkpoint yet"):
        audit(tmp_path, AuditRequest(0))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("equal", "within"), "passed"),
        (("equal", "not comparable"), "passed"),
        (("equal", "differs"), "failed"),
        (("damaged",), "failed"),
        (("undecided", "not comparable"), "nothing confirmed"),
    ],
)
def test_the_verdict_of_all(tmp_path, verdicts, expected):
    assert Audit(tmp_path, 0, tuple(AuditFinding("", one) for one in verdicts), ()).verdict == expected


def test_the_rates_of_the_page_are_those_of_the_benchmark():
    page = (ROOT / "docs/audit.md").read_text()
    found = json.loads((ROOT / "benchmarks/audit.json").read_text())

    def cell(kind: str, verdict: str) -> str:
        one = found[kind]
        unsure = one["verdicts"].get("undecided", 0)
        return f"{one['verdicts'].get(verdict, 0)} of {one['stretches']}{f' ({unsure} undecided)' * bool(unsure)}"

    for kind in {name.partition(", ")[2] for name in found} - {""}:
        sound = kind.startswith("2 ")
        label = f"sound, on {kind}: taken for a difference" if sound else f"{kind}: found"
        cells = [cell(f"{precision}, {kind}", "differs") for precision in ("fp32", "bf16")]
        assert f"| {label} | {' | '.join(cells)} |" in page, kind

    def shown(value: float) -> str:
        return f"{value:g}" if value < 1e-3 else f"{100 * value:.2g} %"

    for kind, one in found.items():
        precision, _, what = kind.partition(", ")
        if what.startswith("2 "):
            cells = [
                ", ".join(shown(one[key][of]) for of in ("median", "largest")) for key in ("share", "share / bound")
            ]
            assert f"| {precision} | {what} | {' | '.join(cells)} |" in page, kind
