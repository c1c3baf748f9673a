"""config.yaml against the newest checkpoint, metrics.json against its evaluation."""

import json
import shutil

import pytest

from collagan_dist.audit.audit import AuditRequest, audit
from collagan_dist.audit.evaluations import evaluation_files
from collagan_dist.audit.folder_files import audit_config, audit_headline, audit_log
from collagan_dist.audit.record import RunRecord
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.types import World
from tests.audit.test_evaluations import edit


def headline(run):
    record = RunRecord(run)
    return audit_headline(record, evaluation_files(record))


def test_what_a_run_says_itself_is_equal(run):
    assert audit_config(RunRecord(run)) is None and headline(run) is None
    (run / "metrics.json").unlink()
    assert headline(run) is None


def test_baselines_of_a_part_of_the_samples_are_part_of_a_headline(run):
    score(run, World(), ScoreRequest(), sets=["evaluate.baselines=2"])
    assert "baselines_subset" in json.loads((run / "evaluation/test-block.json").read_text())
    shutil.copy(run / "evaluation/test-block.json", run / "metrics.json")
    assert headline(run) is None
    edit(run / "metrics.json", lambda found: found["baselines_subset"]["model"].update(psnr=40.0))
    assert headline(run).wrong[0].startswith(f"{run}/metrics.json: baselines_subset.model.psnr: ")


def test_an_edited_headline_is_named(run):
    edit(run / "metrics.json", lambda found: found.update(psnr_hole=40.0))
    one = headline(run)
    assert one.verdict == "differs" and one.wrong[0].startswith(f"{run}/metrics.json: psnr_hole: ")
    assert one.wrong[0].endswith(" -> 40.0")
    edit(run / "metrics.json", lambda found: found.pop("psnr_hole"))
    assert headline(run).wrong[0].endswith(" -> None")


@pytest.mark.parametrize("change", [{"split": "valid"}, {"hole": "O5"}, {"settings": {}}, {"manifest": "0"}])
def test_a_headline_of_no_evaluation_is_named(run, change):
    edit(run / "metrics.json", lambda found: found.update(change))
    one = headline(run)
    assert one.verdict == "differs" and one.wrong[0].endswith("repeats no evaluation of the run")


def test_a_headline_whose_evaluation_was_replaced_is_said(run):
    """By one in another precision, which is not the run's headline."""
    edit(run / "evaluation/test-block.json", lambda found: found.update(precision="bf16", psnr=1.0))
    one = headline(run)
    assert one.verdict == "not comparable" and one.notes == ("its evaluation was replaced by one of step 9 in bf16",)


def test_a_headline_that_cannot_be_read_is_damage(run):
    for text in ("{", "[]"):
        (run / "metrics.json").write_text(text)
        assert headline(run).verdict == "damaged"


def test_a_headline_beside_a_damaged_evaluation_is_not_accused(run):
    (path,) = (path for path in evaluation_files(RunRecord(run)) if path.stem == "test-block")
    path.with_suffix(".npz").write_bytes(b"PK")
    assert headline(run).verdict == "not comparable"


def test_a_log_of_other_lines_is_damage(run):
    """A line that is still being written is none."""
    log = run / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"kind": "tr')
    assert audit_log(RunRecord(run)) is None
    log.write_bytes(b"not json\n" + log.read_bytes())
    one = audit_log(RunRecord(run))
    assert one.verdict == "damaged" and one.wrong == (f"{log}: 1 damaged line",)


def test_an_edited_configuration_is_named(run):
    path = run / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.0002", "lr: 0.0001"))
    one = audit_config(RunRecord(run))
    assert one.verdict == "differs" and "optim.discriminators.lr: 0.0002 -> 0.0001" in one.wrong[0]
    # Of a start that was killed before its first checkpoint.
    world = json.loads((run / "world.json").read_text())
    (run / "world.json").write_text(json.dumps(world | {"generation": world["generation"] + 1}))
    one = audit_config(RunRecord(run))
    assert one.verdict == "not comparable" and "optim.discriminators.lr: 0.0002 -> 0.0001" in one.notes[0]
    path.write_text("optim: [")
    assert audit_config(RunRecord(run)).verdict == "damaged"


def test_an_audit_names_them(run):
    edit(run / "metrics.json", lambda found: found.update(psnr=40.0))
    found = audit(run, AuditRequest(0, stretches=0))
    assert found.verdict == "failed" and found.findings[0].subject == "metrics.json"


def test_config_yaml_beside_networks_of_another_trial(run):
    """Before the next segment of PBT, the newest checkpoint has the configuration of the trial that it was taken from."""
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("adv_from: 4", "adv_from: 3"))
    assert audit_config(RunRecord(run)).verdict == "differs"
    (run / "trial.json").write_text(json.dumps({"batch": 4, "lineage": [{"at": 36, "from": 2}]}))
    assert audit_config(RunRecord(run)).notes == (
        "the newest checkpoint was taken from trial 2, with its configuration",
    )
