"""What of a run is found when it was changed after the training, and what is not taken for a change."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from collagan_dist.audit.rederive import Rederivation
from collagan_dist.errors import NumericError
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.audit.conftest import AUDITED
from tests.runs.run_folders import rehash, rewrite_state
from tests.training.small import small


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def checkpoint(run: Path, step: int) -> Path:
    return run / f"checkpoints/step-{step:08d}"


def forge(folder: Path, file: str, change) -> str:
    """Change the first tensor of a file, hash and all; return its name."""
    tensors = load_file(folder / file)
    name = next(
        iter(sorted(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.dim() > 1))
    )
    tensors[name] = change(tensors[name].clone())
    save_file(tensors, folder / file, {"format": "pt"})
    rehash(folder, file)
    return name


def move_one_bit(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1).view(torch.int32)[0] ^= 1
    return tensor


def enlarge_one(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[0] += 100 * tensor.abs().max()
    return tensor


@pytest.mark.parametrize("start", [0, 3])
def test_a_stretch_is_equal_bit_for_bit_and_the_run_only_read(findings, run, start):
    before = contents(run)
    (one,) = findings(run, start, start + 3)
    assert (one.verdict, one.wrong, one.reasons, one.notes) == ("equal", (), (), ())
    assert one.how == "1 rank, 1 thread" and one.compared.endswith(" tensors, 4 lines")
    assert contents(run) == before


@pytest.mark.parametrize("file", ["generator", pytest.param("optimizer", marks=pytest.mark.full)])
def test_one_forged_bit_is_named(findings, run, file):
    name = forge(checkpoint(run, 6), f"{file}.safetensors", move_one_bit)
    (one,) = findings(run, 3, 6)
    assert one.verdict == "differs" and f"first in {file}.safetensors: {name}, in 1 of " in one.wrong[0]
    assert "although all that is recorded is equal" in one.wrong[0] and "no larger than roundings" in one.wrong[0]


@pytest.mark.parametrize("start", [0, 3])
def test_another_processor_gives_what_roundings_explain(findings, elsewhere, start):
    (one,) = findings(elsewhere, start, start + 3)
    assert one.verdict == "within" and one.reasons[0].startswith("name: another processor -> ")
    assert 0 < one.share < one.bound < 0.2 and one.compared.endswith(" tensors, 4 lines")


@pytest.mark.parametrize("file", ["generator", pytest.param("optimizer", marks=pytest.mark.full)])
def test_with_another_processor_one_changed_element_is_named(findings, elsewhere, file):
    name = forge(checkpoint(elsewhere, 6), f"{file}.safetensors", enlarge_one)
    (one,) = findings(elsewhere, 3, 6)
    assert one.verdict == "differs" and one.wrong[0].startswith(f"{file}.safetensors: {name}, ")


@pytest.mark.full  # threads that share too few cores wait for one another
def test_with_other_threads_bits_may_differ(findings, run):
    (one,) = findings(run, 3, 6, threads=2)
    assert one.verdict == "within" and one.reasons == ("threads: 1 -> 2",) and 0 < one.share < one.bound < 0.2


def test_a_damaged_file_is_named(findings, run):
    path = checkpoint(run, 6) / "ema.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (one,) = findings(run, 3, 6)
    assert one.verdict == "damaged" and "step-00000006: ema.safetensors is damaged or edited" in one.wrong[0]


def spoil_one(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[0] = float("nan")
    return tensor


@pytest.mark.parametrize("step", [3, 6])
def test_a_number_that_is_not_finite_is_damage(findings, run, step):
    name = forge(checkpoint(run, step), "generator.safetensors", spoil_one)
    (one,) = findings(run, 3, 6)
    assert one.verdict == "damaged" and f"generator.safetensors: {name} holds numbers that are not" in one.wrong[0]


def test_another_learning_rate_in_one_checkpoint_is_named(findings, run):
    rewrite_state(checkpoint(run, 6), lambda state: state["config"]["optim"]["generator"].update(lr=0.001))
    (one,) = findings(run, 3, 6)
    assert (
        one.verdict == "differs"
        and "optim.generator.lr: 0.0002 -> 0.001" in one.wrong[0]
        and "no start between" in one.wrong[0]
    )


@pytest.mark.parametrize("key", ["seed", pytest.param("lr", marks=pytest.mark.full)])
def test_a_configuration_that_was_changed_everywhere_gives_other_weights(findings, run, elsewhere, key):
    def forged(state):
        if key == "seed":
            state["config"]["seed"] = state["seed"] = 5
        else:
            state["config"]["optim"]["generator"]["lr"] *= 1.5

    folder = run if key == "seed" else elsewhere
    for step in (3, 6, 9):
        rewrite_state(checkpoint(folder, step), forged)
    (one,) = findings(folder, 3, 6)
    assert one.verdict == "differs" and "generator.safetensors" in one.wrong[0]
    assert folder == elsewhere or "larger than roundings" in one.wrong[0]


def edit_line(run: Path, kind: str, step: int, key: str, factor: float) -> float:
    """Multiply a number of metrics.jsonl; return what it is then."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if row["kind"] == kind and row["step"] == step)
    row[key] *= factor
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return float(row[key])


@pytest.mark.parametrize(
    ("kind", "key"), [("train", "loss/inpainting/rec"), pytest.param("eval", "psnr", marks=pytest.mark.full)]
)
def test_an_edited_line_is_named(findings, run, elsewhere, kind, key):
    folder = run if kind == "train" else elsewhere
    edited = edit_line(folder, kind, 6, key, 1.1)
    (one,) = findings(folder, 3, 6)
    assert one.verdict == "differs" and f"metrics.jsonl: step 6: {key}: {edited} -> " in one.wrong[0]


def test_where_bits_may_differ_evaluations_may_though_no_tensor_does(findings, run):
    """As where the threads of another machine change sums of the evaluations alone."""
    rewrite_state(checkpoint(run, 6), lambda state: state["machine"].update(name="another processor"))
    edit_line(run, "eval", 6, "psnr", 1 + 1e-7)
    (one,) = findings(run, 3, 6)
    assert one.verdict == "within" and one.wrong == () and one.share == 0
    # Losses cannot, where they led to the same weights.
    edit_line(run, "train", 5, "loss/inpainting/rec", 1 + 1e-7)
    (one,) = findings(run, 3, 6)
    assert one.verdict == "differs" and "step 5: loss/inpainting/rec: " in one.wrong[0]


def test_a_removed_line_is_named(findings, run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not ('"train"' in line and '"step": 4,' in line)]
    assert len(kept) == len(lines) - 1
    (run / "metrics.jsonl").write_text("".join(kept))
    (one,) = findings(run, 3, 6)
    assert "metrics.jsonl: step 4: metrics.jsonl has no train line" in one.wrong


def test_removed_evaluations_are_named_and_a_missing_log_is_said(findings, run):
    path = run / "metrics.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if '"kind": "eval"' not in line]
    path.write_text("".join(kept))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "differs" and one.wrong == ("metrics.jsonl: step 6: metrics.jsonl has no eval line",)
    path.unlink()
    (one,) = findings(run, 3, 6)
    assert one.verdict == "equal" and one.notes == ("metrics.jsonl has no start up to step 3: lines may be missing",)


def test_a_pruned_checkpoint_is_no_damage(findings, run):
    shutil.rmtree(checkpoint(run, 6))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "not comparable" and "was removed by the run meanwhile" in one.notes[0]


def interrupted(shards, run: Path, step: int, **changes) -> None:
    """Train three steps, then to `step`, whose checkpoint does not stay, then to six with the changes."""
    for stop_at in (3, step):
        train(small(shards.folder, **AUDITED), run, World(), StartOptions(stop_at=stop_at))
    train(small(shards.folder, **AUDITED | changes), run, World(), StartOptions(stop_at=6, allow_config_change=True))
    shutil.rmtree(checkpoint(run, step))


def test_a_start_in_between_is_no_change_but_another_machine_is_said(findings, shards, tmp_path):
    interrupted(shards, tmp_path / "run", 5)
    (one,) = findings(tmp_path / "run", 3, 6)
    assert one.verdict == "equal" and one.notes == ("eval line of step 5: the configuration of the end has none there",)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row.get("event") == "resume" and row["step"] == 5:
            row["machine"] = ["threads: 1 -> 2"]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    forge(checkpoint(tmp_path / "run", 6), "generator.safetensors", move_one_bit)
    (one,) = findings(tmp_path / "run", 3, 6)
    assert one.reasons == ("from step 5 on threads: 1 -> 2",) and one.verdict == "within"


def test_older_code_is_a_reason_also_for_an_earlier_start(findings, run):
    """The run's record of its newest start says nothing of who wrote this checkpoint."""
    rewrite_state(checkpoint(run, 6), lambda state: state["machine"].update(commit="0123456789ab", decoder="A on cpu"))
    (run / "world.json").unlink()
    forge(checkpoint(run, 6), "generator.safetensors", move_one_bit)
    (one,) = findings(run, 3, 6)
    assert one.verdict == "within" and len(one.reasons) == 2
    assert one.reasons[0].startswith("commit: 0123456789ab -> ") and one.reasons[1].startswith("decoder: A on cpu -> ")
    rewrite_state(checkpoint(run, 6), lambda state: [state["machine"].pop(key) for key in ("commit", "decoder")])
    (one,) = findings(run, 3, 6)
    assert one.verdict == "within" and {"commit: not recorded", "decoder: not recorded"} == set(one.reasons)


@pytest.mark.full
def test_a_configuration_that_a_start_in_between_changed_is_not_compared(findings, shards, tmp_path):
    interrupted(shards, tmp_path / "run", 5, optim={"ema": 0.9, "generator": {"lr": 0.001}})
    (one,) = findings(tmp_path / "run", 3, 6)
    assert one.verdict == "not comparable" and "at step 5: optim.generator.lr: 0.0002 -> 0.001" in one.notes[0]


@pytest.mark.full  # six trainings
def test_batches_that_a_rollback_left_out_are_left_out(findings, shards, tmp_path):
    """The first checkpoint is from before the rollback, and does not know of it."""
    run = tmp_path / "run"
    train(small(shards.folder, **AUDITED), run, World(), StartOptions(stop_at=3))
    rewrite_state(checkpoint(run, 3), lambda state: state.update(skipped_batches=[4]))
    train(small(shards.folder, **AUDITED), run, World(), StartOptions(stop_at=6))
    rewrite_state(checkpoint(run, 3), lambda state: state.update(skipped_batches=[]))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "equal"
    rewrite_state(checkpoint(run, 6), lambda state: state.update(skipped_batches=[]))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "differs"


def test_a_batch_that_only_the_checkpoints_leave_out_is_named(findings, shards, tmp_path):
    """As where a training without it was put in the place of the run's."""
    run = tmp_path / "run"
    train(small(shards.folder, **AUDITED), run, World(), StartOptions(stop_at=3))
    rewrite_state(checkpoint(run, 3), lambda state: state.update(skipped_batches=[4]))
    train(small(shards.folder, **AUDITED), run, World(), StartOptions(stop_at=6))
    path = run / "metrics.jsonl"
    path.write_text("".join(one for one in path.read_text().splitlines(keepends=True) if '"left_out"' not in one))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "differs" and len(one.wrong) == 1
    assert one.wrong[0].endswith("skipped_batches: metrics.jsonl does not say that step 5 was left out")


def test_beyond_bounds_pictures_of_another_decoder_decide_nothing(findings, run):
    forge(checkpoint(run, 6), "generator.safetensors", enlarge_one)
    rewrite_state(checkpoint(run, 6), lambda state: state["machine"].update(decoder="another library on cuda"))
    (one,) = findings(run, 3, 6)
    assert one.verdict == "undecided" and one.wrong == () and "decoded by another library" in one.notes[0]


@pytest.mark.parametrize("tensors", ["other", "equal"])
def test_a_twin_that_fails_leaves_it_undecided(findings, elsewhere, run, monkeypatch, tensors):
    folder = elsewhere
    if tensors == "equal":
        folder = run
        rewrite_state(checkpoint(run, 6), lambda state: state["machine"].update(name="another processor"))
        edit_line(run, "eval", 6, "psnr", 1 + 1e-7)
    real = Rederivation.train

    def failing(self, work, nudged=None):
        if nudged is not None:
            raise NumericError("steps 4 to 6: NaN or Inf again")
        return real(self, work)

    monkeypatch.setattr(Rederivation, "train", failing)
    (one,) = findings(folder, 3, 6)
    assert one.verdict == "undecided" and one.wrong == () and one.notes[-1].endswith("NaN or Inf again")
