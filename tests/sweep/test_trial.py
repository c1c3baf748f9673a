import json
from dataclasses import asdict, replace

import pytest

from collagan_dist.errors import DataError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.metrics_log import last_train_step
from collagan_dist.sweep.trial import (
    Trial,
    adopt_checkpoint,
    read_trials,
    trial_dir,
    undo_interrupted_adoptions,
    without_retryable_failure,
    write_trial,
)  # fmt: skip

LINEAGE = ({"at": 8, "from": 1, "values": {}},)
FAILURE = (4, "its node is gone")
TRIAL = Trial(
    0, "search", {"loss.adv": "ns"}, 3, 4, {"note": [1]}, until=40, lineage=LINEAGE, failure=FAILURE, restarts=2
)


def test_only_complete_evaluation_lines_count(tmp_path):
    """Not lines of other kinds, cut ones, metrics without a number, or a step without its checkpoint, which is trained again.

    Of two of a step the later one counts.
    """
    write_trial(tmp_path, TRIAL)
    place = trial_dir(tmp_path, TRIAL)
    assert read_trials(tmp_path)[0].results == {} and RunPaths(place).newest_step() == last_train_step(place) == 0
    (place / "checkpoints/step-00000009").mkdir(parents=True)
    (place / "checkpoints/.step-00000012.partial").mkdir()
    (place / "checkpoints/step-00000013.kept").mkdir()  # by somebody
    rows = [
        '{"kind": "train", "step": 1, "eval": 3, "psnr": 9.0}', '{"kind": "eval", "step": 2, "psnr": 1.0}',
        '{"kind": "eval", "step": 3, "psnr": 1{"kind": "eval", "step": 3, "psnr": 2.0}', '["eval"]',
        '{"kind": "eval", "step": 4, "psnr": null, "ssim": 0.5, "dice": {}, "landmark_error": {"nose": 1.0, "mean": 2.0}}',
        '{"kind": "eval", "step": 2, "psnr": 3.0}', '{"kind": "train", "step": 8}', '{"kind": "eval", "step": 10, "psnr": 9.0}',
        '{"kind": "eval", "step": 5, "ps',
    ]  # fmt: skip
    (place / "metrics.jsonl").write_text("\n".join(rows))
    (trial,) = read_trials(tmp_path)
    assert trial.results == {8: {"psnr": 3.0}, 16: {"ssim": 0.5, "landmark_error": 2.0}}
    assert RunPaths(place).newest_step() == 9 and last_train_step(place) == 8


def test_trials_are_read_as_written_by_number(tmp_path):
    """Also more than a thousand; a folder without trial.json, as a kill leaves it, is none."""
    trials = [replace(TRIAL, number=number) for number in range(1001)]
    for trial in reversed(trials):
        write_trial(tmp_path, trial)
    (tmp_path / "trials/t1001").mkdir()
    assert read_trials(tmp_path) == trials
    assert read_trials(tmp_path / "nowhere") == []


DAMAGED = {
    "": "empty", "{": "cut", "[]": "a list", "null": "null", "{}": "nothing", json.dumps(asdict(TRIAL) | {"failure": [4]}): "half a failure",
    json.dumps(asdict(TRIAL) | {"lineage": None}): "no lineage", json.dumps(asdict(TRIAL) | {"failure": ["x", "y"]}): "no code",
    json.dumps({k: v for k, v in asdict(TRIAL).items() if k != "seed"}): "no seed",
    json.dumps(asdict(TRIAL) | {"number": "0"}): "no number", json.dumps(asdict(TRIAL) | {"batch": 0}): "no batch",
    json.dumps(asdict(TRIAL) | {"values": [1]}): "no values", "\xff": "no text",
    json.dumps(asdict(TRIAL) | {"number": 7}): "another trial",
}  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=list(DAMAGED.values()))
def test_a_damaged_trial_is_named(text, tmp_path):
    write_trial(tmp_path, TRIAL)
    (tmp_path / "trials/t000/trial.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"trials/t000/trial\.json:.*; restore it, or give another --out"):
        read_trials(tmp_path)


@pytest.mark.parametrize(("code", "again"), [(1, False), (2, False), (3, True), (4, True), (5, True), (6, False)])
def test_failures_that_can_be_repaired_are_retried(code, again):
    """Data, cluster, disk; not a configuration, our own mistakes or NaN. Nothing else of the trial changes."""
    failed = replace(TRIAL, failure=(code, "why"))
    assert without_retryable_failure(failed) == replace(failed, failure=None if again else (code, "why"))
    assert without_retryable_failure(replace(TRIAL, failure=None)) == replace(TRIAL, failure=None)


def test_missing_trials_are_named(tmp_path):
    write_trial(tmp_path, TRIAL)
    write_trial(tmp_path, replace(TRIAL, number=2))
    with pytest.raises(DataError, match="trials are missing"):
        read_trials(tmp_path)


@pytest.mark.parametrize(
    ("number", "changes", "first"),
    [
        (1, {"repeat_of": 1}, 1),
        (1, {"repeat_of": 2}, 2),
        (2, {"repeat_of": 1}, 1),  # which repeats trial 0
        (1, {"values": {"loss.adv": "minmax"}}, 0),
        (1, {"role": "confirm"}, 0),
    ],
)
def test_a_trial_that_does_not_repeat_another_is_named(tmp_path, number, changes, first):
    trials = [TRIAL, *(replace(TRIAL, number=n, seed=3 + n, repeat_of=0) for n in (1, 2))]
    for trial in trials:
        write_trial(tmp_path, trial)
    assert [trial.configuration for trial in read_trials(tmp_path)] == [0, 0, 0]
    write_trial(tmp_path, replace(trials[number], **changes))
    with pytest.raises(DataError, match=rf"t00{number}/trial\.json: does not repeat trial {first}; restore it"):
        read_trials(tmp_path)


def test_the_donors_checkpoint_replaces_the_own(tmp_path):
    for name in ("mine", "theirs"):
        (tmp_path / name / "checkpoints/step-00000008").mkdir(parents=True)
        (tmp_path / name / "checkpoints/step-00000008/weights").write_text(name)
    (tmp_path / "mine/checkpoints/.step-00000008.adopted").mkdir()
    for _ in range(2):
        adopt_checkpoint(tmp_path / "mine", tmp_path / "theirs", 8)
        assert (tmp_path / "mine/checkpoints/step-00000008/weights").read_text() == "theirs"
    (only,) = (tmp_path / "mine/checkpoints").iterdir()
    assert (only / "weights").stat().st_nlink == 2 and (tmp_path / "theirs/checkpoints/step-00000008/weights").exists()


def test_an_adoption_killed_between_its_renames_is_undone(tmp_path):
    """Otherwise the member would resume from an older checkpoint, or from none."""
    aside = tmp_path / "trials/t000/checkpoints/.step-00000008.own"
    aside.mkdir(parents=True)
    (aside / "weights").write_text("mine")
    undo_interrupted_adoptions(tmp_path)
    assert (tmp_path / "trials/t000/checkpoints/step-00000008/weights").read_text() == "mine"
