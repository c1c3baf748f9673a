"""Row 26: NaN or Inf in a loss: skipped steps, rollbacks, and the end of the run."""

import pytest
import torch

from collagan_dist.config.load import to_yaml
from collagan_dist.distributed import precision
from collagan_dist.errors import NumericError
from collagan_dist.runs import checkpoint
from collagan_dist.runs.layout import checkpoint_steps
from collagan_dist.runs.run_folder import Progress
from collagan_dist.training.guard import Guard
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.faults.injected import nan_where
from tests.launch import torchrun
from tests.runs.run_folders import events
from tests.training.small import equal, small, weights

OFTEN = {"checkpoint__every": 2, "log__every": 1, "schedule__steps": 8}


@pytest.mark.parametrize("side", ["discriminators", "generator"])
def test_row_26_a_bad_phase_skips_itself_and_what_follows(shards, tmp_path, side, capsys):
    """NaN in D's phase: neither side moves; in G's: D has learned, G has not. The batch's statistics leave no trace either."""
    run = small(shards.folder, **{**OFTEN, "schedule__steps": 3, "checkpoint__every": 1})
    with nan_where(lambda rank, step, s: step == 2 and s == side):
        train(run, tmp_path, World())
    before, after = weights(tmp_path, 2), weights(tmp_path, 3)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    of_d = {n for n in moved if n.startswith(("discriminators/", "optimizer/discriminators/"))}
    assert moved == of_d and bool(of_d) == (side == "generator")
    assert not any("running" in name or "num_batches" in name for name in moved)
    (event,) = events(tmp_path, "skip")
    assert (event["step"], event["phase"], event["ranks"], event["overflow"]) == (3, side, [0], False)
    assert f"warning: step 3: the {side} met NaN or Inf on rank 0; skipped" in capsys.readouterr().err


def test_row_26_three_in_a_row_go_back_and_leave_the_batches_out(shards, tmp_path):
    """Steps 3, 4, 5 are bad: back to the checkpoint of step 2 or 4, and on without them; a later start knows of them."""
    config = small(shards.folder, **OFTEN)
    with nan_where(lambda rank, step, side: step in (3, 4, 5) and side == "generator") as done:
        train(config, tmp_path / "run", World())
    assert [e["step"] for e in events(tmp_path / "run", "skip")][:3] == [4, 5, 6]
    (back,) = events(tmp_path / "run", "rollback")
    state = checkpoint.load(tmp_path / "run/checkpoints/step-00000008").state
    assert back["step"] == 4 and state["skipped_batches"] == [3, 4, 5] and state["step"] == 8
    assert [step for step, side in done if side == "generator"] == [0, 1, 2, 3, 4, 5, 6, 7]
    longer = small(shards.folder, **{**OFTEN, "schedule__steps": 10})
    train(longer, tmp_path / "run", World())
    assert checkpoint.load(tmp_path / "run/checkpoints/step-00000010").state["skipped_batches"] == [3, 4, 5]


def test_row_26_interrupted_in_between_is_the_same(shards, tmp_path, monkeypatch):
    """The way over a spell of NaN is a function of the data: a run that was stopped inside it ends with the same weights,
    which are those of a run that never meets these batches."""

    def bad(rank: int, step: int, side: str) -> bool:
        return step in (3, 4, 5) and side == "discriminators"

    with nan_where(bad):
        train(small(shards.folder, **OFTEN), tmp_path / "whole", World())
        for steps in (4, 5, 8):
            train(small(shards.folder, **{**OFTEN, "schedule__steps": steps}), tmp_path / "parts", World())
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))
    monkeypatch.setattr(Guard, "resume", lambda self, progress: Progress(progress.step, [3, 4, 5]))
    train(small(shards.folder, **OFTEN), tmp_path / "never", World())
    assert not events(tmp_path / "never", "skip") and len(events(tmp_path / "never", "left_out")) == 3
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "never", 8))


@pytest.mark.parametrize("side", ["generator", "discriminators"])
def test_row_26_a_verdict_that_is_read_a_step_late_decides_alike(shards, tmp_path, side):
    """Between lines nobody waits for a verdict: the step after a bad row is done in vain. What is learned and told is the same."""
    with nan_where(lambda rank, step, s: step in (1, 4, 5, 6) and s == side) as done:
        for name, every in (("soon", 1), ("late", 100)):
            slow = {"checkpoint__every": 100, "log__every": every, "log__grid_every": 100, "evaluate__every": 0}
            train(small(shards.folder, **{**OFTEN, **slow, "schedule__steps": 12}), tmp_path / name, World())
    assert sum(step == 7 for step, s in done if s == "generator") == 3  # once in vain
    found = [[(e["step"], e["phase"]) for e in events(tmp_path / name, "skip")] for name in ("soon", "late")]
    assert found[0] == found[1] and [step for step, _ in found[0]] == [2, 5, 6, 7, 2]
    assert equal(weights(tmp_path / "soon", 12), weights(tmp_path / "late", 12))


@pytest.mark.parametrize("side", ["generator", "discriminators"])
@pytest.mark.parametrize("stop", [4, 5])
def test_row_26_a_row_across_an_interruption_rolls_back_as_without_one(shards, tmp_path, side, stop):
    """One and two steps of the row lie before the checkpoint, where D has learned of them if G was bad."""
    every = {**OFTEN, "checkpoint__every": stop}
    with nan_where(lambda rank, step, s: step in (3, 4, 5) and s == side):
        train(small(shards.folder, **every), tmp_path / "whole", World())
        for steps in (stop, 8):
            train(small(shards.folder, **{**every, "schedule__steps": steps}), tmp_path / "parts", World())
    for run in ("whole", "parts"):
        (back,) = events(tmp_path / run, "rollback")
        assert back["step"] == stop and len(events(tmp_path / run, "skip")) == 3
        state = checkpoint.load(tmp_path / run / "checkpoints/step-00000008").state
        assert (state["skipped_batches"], state["bad_row"]) == ([3, 4, 5], [])
    assert equal(weights(tmp_path / "whole", 8), weights(tmp_path / "parts", 8))


def test_row_26_nan_that_stays_ends_the_run_with_code_6(shards, tmp_path):
    """Three returns to the last good checkpoint, then exit 6; that checkpoint is whole, and no NaN is in any."""
    with (
        nan_where(lambda rank, step, side: step >= 3),
        pytest.raises(NumericError, match="after 3 returns to the last good checkpoint") as caught,
    ):
        train(small(shards.folder, **{**OFTEN, "schedule__steps": 40}), tmp_path, World())
    assert caught.value.exit_code == 6 and len(events(tmp_path, "rollback")) == 3
    for step in checkpoint_steps(tmp_path / "checkpoints"):
        assert all(t.isfinite().all() for t in weights(tmp_path, step).values())
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_row_26_parameters_that_are_no_numbers_are_never_saved(shards, tmp_path):
    """Finite gradients, and a step so long that float32 has no number for where it leads."""
    wild = small(shards.folder, **OFTEN, optim__generator={"lr": 3e38})
    with pytest.raises(NumericError):
        train(wild, tmp_path, World())
    assert checkpoint_steps(tmp_path / "checkpoints") == []


def test_row_26_on_one_of_two_ranks(shards, tmp_path):
    """Both ranks skip and the rank is named; after three in a row both roll back together. (Both sides: test_deepspeed.py.)"""
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, **OFTEN)))
    done = torchrun(2, "-m", "--", "tests.faults.injected", config, tmp_path / "run", 1, 3, 5, "generator")
    assert done.returncode == 0, done.stderr
    assert "warning: step 4: the generator met NaN or Inf on rank 1; skipped" in done.stderr
    assert [event["ranks"] for event in events(tmp_path / "run", "skip")] == [[1]] * 3
    assert len(events(tmp_path / "run", "rollback")) == 1


def test_row_26_fp16_lowers_its_scale_instead(shards, tmp_path, monkeypatch):
    """An overflow is no NaN: the step is skipped, the scale halved, and both are what a continued run knows."""
    monkeypatch.setattr(precision, "_INITIAL_SCALE", 2.0**18)
    config = {**OFTEN, "runtime__precision": "fp16", "schedule__adv_from": 100}
    train(small(shards.folder, **config), tmp_path / "whole", World())
    train(small(shards.folder, **{**config, "schedule__steps": 5}), tmp_path / "parts", World())
    train(small(shards.folder, **config), tmp_path / "parts", World())
    final = weights(tmp_path / "whole", 8)
    assert equal(final, weights(tmp_path / "parts", 8))
    scale, good = final["optimizer/generator/loss_scale"].tolist()
    skipped = events(tmp_path / "whole", "skip")
    assert 1 < len(skipped) < 8 and scale == 2.0 ** (18 - len(skipped)) and good == 8 - len(skipped)
    assert all(e["overflow"] and not e["ranks"] for e in skipped) and not events(tmp_path / "whole", "rollback")
