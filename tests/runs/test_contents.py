import copy
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from collagan_dist.errors import CheckpointError
from collagan_dist.runs import checkpoint, contents
from collagan_dist.runs.checkpoint_state import parse_state
from tests.faults.damages import rounds
from tests.faults.mutations import mutated_json
from tests.models.peers import start
from tests.runs.run_folders import SAVING, rehash
from tests.training.small import equal, small

NAME = "encoder.0.0.weight"
MOMENT = f"generator/{NAME}/exp_avg"


@pytest.fixture
def files(finished: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of the finished run's last checkpoint, to be changed."""
    return copy.deepcopy(checkpoint.load(finished / "checkpoints/step-00000009").tensors)


@pytest.fixture(scope="session")
def networks(shards: Any) -> Any:
    """Networks of the finished run's configuration, at their start."""
    return start(small(shards.folder, **SAVING))[1]


def value(kind: torch.dtype = torch.float32, *shape: int, fill: float = 0.5) -> torch.Tensor:
    return torch.full(shape, fill).to(kind)


# What is changed: (file, tensor, its new value or None to leave it out), and what the message says.
WRONG = {
    "another shape": ("generator", NAME, value(torch.float32, 4, 3, 3, 3), "has shape [4, 3, 3, 3]"),
    "another type": ("generator", NAME, value(torch.float64, 4, 3, 4, 4), "is of type torch.float64"),
    "a tensor is missing": ("discriminators", None, None, "is missing"),
    "a foreign tensor": ("ema", "encoder.9.weight", value(), "which has no encoder.9.weight"),
    "NaN": ("ema", NAME, value(torch.float32, 4, 3, 4, 4, fill=float("nan")), "not finite"),
    "infinity": ("generator", NAME, value(torch.float32, 4, 3, 4, 4, fill=float("inf")), "not finite"),
    "a variance below zero": ("generator", "encoder.1.1.running_var", value(torch.float32, 8, fill=-1.0), "below zero"),
    "a count below zero": ("generator", "encoder.1.1.num_batches_tracked", torch.tensor(-1), "below zero"),
    "a moment of another shape": ("optimizer", MOMENT, value(torch.float32, 1 << 20), "has shape [1048576]"),
    "a moment without a shape": ("optimizer", MOMENT, value(), "has shape []"),
    "a moment of another type": ("optimizer", MOMENT, value(torch.bfloat16, 4, 3, 4, 4), "is of type torch.bfloat16"),
    "a moment is missing": ("optimizer", f"{MOMENT}_sq", None, f"{MOMENT}_sq is missing"),
    "NaN in a moment": ("optimizer", MOMENT, value(torch.float32, 4, 3, 4, 4, fill=float("nan")), "not finite"),
    "squares below zero": ("optimizer", f"{MOMENT}_sq", value(torch.float32, 4, 3, 4, 4, fill=-1.0), "below zero"),
    "a step with a shape": ("optimizer", f"generator/{NAME}/step", value(torch.float32, 7), "has shape [7]"),
    "a step below zero": ("optimizer", f"generator/{NAME}/step", value(fill=-3.0), "below zero"),
    "a step is missing": ("optimizer", f"generator/{NAME}/step", None, "is missing"),
    "a foreign moment": ("optimizer", "generator/other/exp_avg", value(), "which has no generator/other/exp_avg"),
    "a scale of 0": ("optimizer", "generator/loss_scale", value(torch.float64, 2, fill=0.0), "no scale of losses"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_tensors_of_another_network_are_refused_before_any_is_loaded(files, networks, case):
    """A moment of another shape went into Adam's fused kernel, which wrote beyond its memory."""
    file, name, new, said = WRONG[case]
    before = {f"{f}/{n}": t.clone() for f, content in networks.tensors().items() for n, t in content.items()}
    name = name or next(iter(files[file]))
    if new is None:
        del files[file][name]
    else:
        files[file][name] = new
    with pytest.raises(CheckpointError) as refused:
        networks.restore(files)
    assert said in str(refused.value) and f"{file}.safetensors" in str(refused.value)
    after = {f"{f}/{n}": t for f, content in networks.tensors().items() for n, t in content.items()}
    assert equal(before, after)


STATE = {"step": 9, "skipped_batches": [], "config": {"optim": {"ema": 0.9}}}


def test_a_checkpoint_is_complete(files):
    contents.check_files(files, STATE)
    # A run that averages since this start has a checkpoint without an average.
    contents.check_files({k: v for k, v in files.items() if k != "ema"}, {**STATE, "config": {"optim": {"ema": 0.0}}})
    for missing in files:
        with pytest.raises(CheckpointError, match=f"is incomplete: {missing}.safetensors is missing"):
            contents.check_files({k: v for k, v in files.items() if k != missing}, STATE)
    with pytest.raises(CheckpointError, match=r"other.safetensors is no file of a checkpoint"):
        contents.check_files({**files, "other": {}}, STATE)


def test_adam_has_a_state_after_its_first_steps(files):
    """It starts anew only where no step was taken: three that are not finite in a row roll back."""
    fresh = {**files, "optimizer": {}}
    contents.check_files(fresh, {**STATE, "step": 2})
    contents.check_files(fresh, {**STATE, "skipped_batches": [0, 1, 2, 3, 4, 5, 6]})
    with pytest.raises(CheckpointError, match="no state of the generator's Adam"):
        contents.check_files(fresh, STATE)


@rounds(300, 10_000)
def test_checkpoints_with_mutations_that_their_hashes_agree_with(finished, networks, tmp_path, rounds):
    """Only clear errors: never another exception, never a hang, never a crash of the process."""
    source, found = finished / "checkpoints/step-00000009", Counter()
    for number in range(rounds):
        at = random.Random(number)
        path = Path(shutil.copytree(source, tmp_path / "step-00000009"))
        file = at.choice(sorted(path.iterdir()))
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        # Of a tensor file its header, since other numbers are what training writes too.
        file.write_bytes(
            mutated_json(content, at)
            if file.suffix == ".json"
            else content[:8] + mutated_json(content[8 : 8 + size].rstrip(), at).ljust(size)[:size] + content[8 + size :]
        )
        rehash(path, file.name)
        try:
            loaded = checkpoint.load(path)
            contents.check_files(loaded.tensors, parse_state(path, loaded.state))
            networks.restore(loaded.tensors)
            found["sound"] += 1
        except CheckpointError as error:
            assert len(str(error)) < 2000, number
            found["refused"] += 1
        shutil.rmtree(path)
    assert found["refused"] > 0.6 * rounds, found
