import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError, ClusterError
from collagan_dist.runs import checkpoint
from collagan_dist.runs.async_checkpoint import AsyncCheckpointer, HostCopy
from collagan_dist.runs.layout import checkpoint_dir, checkpoint_steps
from collagan_dist.runs.lease import Lease
from collagan_dist.types import World
from tests.runs.test_lease import take_lease


class Counter:
    """What is trained here: one tensor, to which each step adds 1."""

    def __init__(self) -> None:
        self.value = torch.zeros(3)

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        adam = {"generator/value/step": torch.tensor(6.0)}
        return {"generator": {"value": self.value}, "discriminators": {}, "ema": {}, "optimizer": adam}

    def restore(self, files: dict[str, dict[str, torch.Tensor]]) -> None:
        self.value = files["generator"]["value"]


class Events(list):
    """The events that were logged, as (step, name, facts)."""

    def __call__(self, step: int, name: str, **facts: Any) -> None:
        self.append((step, name, facts))


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    lease = take_lease(tmp_path)
    yield lease
    lease.release()


def checkpointer(folder: Path, max_failures: int = 3) -> AsyncCheckpointer:
    return AsyncCheckpointer(folder, Group(World(), torch.device("cpu")), 2, max_failures)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, lease, monkeypatch):
    """The checkpoint of step 2, of which nothing is written before step 3 is done, holds what step 2 had."""
    step_3_done, write_files = threading.Event(), checkpoint._write_files

    def write_late(*args: Any) -> None:
        assert step_3_done.wait(60)
        write_files(*args)

    monkeypatch.setattr(checkpoint, "_write_files", write_late)
    networks, saves, events = Counter(), checkpointer(tmp_path / "checkpoints"), Events()
    networks.value += 2
    saves.save(networks, 2, lambda: {"step": 2}, lease, events)
    networks.value += 1
    step_3_done.set()
    saves.save(networks, 3, lambda: {"step": 3}, lease, events)  # waits for the one before
    assert checkpoint_steps(tmp_path / "checkpoints") in ([2], [2, 3])
    saves.wait(events, required=True)
    saves.close()
    for step in (2, 3):
        stored = checkpoint.load(checkpoint_dir(tmp_path / "checkpoints", step)).tensors["generator"]["value"]
        assert torch.equal(stored, torch.full((3,), float(step)))
    assert saves.blocked_seconds > 0 and not events


def test_failures_in_a_row_end_the_run(tmp_path, lease, capsys):
    """Each is named by a warning and an event. A write that succeeds in between starts the count again."""
    folder, events = tmp_path / "checkpoints", Events()
    saves = checkpointer(folder, max_failures=2)

    # A file in the way of the folder makes a write fail.
    for step, fails in ((1, False), (2, True), (3, False), (4, True), (5, True)):
        saves.wait(events)
        if fails and folder.is_dir():
            folder.rename(tmp_path / "aside")
            folder.touch()
        elif not fails and folder.exists():
            folder.unlink()
            (tmp_path / "aside").rename(folder)
        saves.save(Counter(), step, {"step": step}.copy, lease, events)
    with pytest.raises(CheckpointError, match=r"2 in a row could not be written. Step 5 is not saved, there is no"):
        saves.wait(events)
    assert [(step, name) for step, name, _ in events] == [(step, "checkpoint_failed") for step in (2, 4, 5)]
    assert all("could not be written" in facts["reason"] and facts["needed"] > 0 for _, _, facts in events)
    assert capsys.readouterr().err.count("warning: ") == 3
    saves.close()


def test_a_write_that_fails_because_the_lease_was_lost_is_no_failure_of_the_disk(tmp_path, lease, monkeypatch, capsys):
    """A newer start removes unfinished folders, so the write that it disturbs may meet any error."""
    taken_over = threading.Event()

    def fail_late(*args: Any) -> None:
        assert taken_over.wait(60)
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(checkpoint, "_write_files", fail_late)
    saves, events = checkpointer(tmp_path / "checkpoints"), Events()
    saves.save(Counter(), 1, lambda: {"step": 1}, lease, events)
    take_lease(tmp_path).release()
    taken_over.set()
    with pytest.raises(ClusterError, match="has taken over"):
        saves.wait(events)
    with pytest.raises(ClusterError, match="has taken over"):  # nor is another write begun
        saves.save(Counter(), 2, lambda: {"step": 2}, lease, events)
    assert not events and "the run goes on" not in capsys.readouterr().err
    saves.close()


def test_copies_are_contiguous_and_reuse_their_memory():
    host_copy = HostCopy()
    source = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    first = host_copy.copy({"file": {"a": source, "b": torch.ones(2, requires_grad=True)}})["file"]
    assert first["a"].is_contiguous() and torch.equal(first["a"], source) and not first["b"].requires_grad
    again = host_copy.copy({"file": {"a": source + 1, "b": torch.ones(3)}})["file"]
    assert again["a"].data_ptr() == first["a"].data_ptr() and torch.equal(again["a"], source + 1)
    assert again["b"].shape == (3,)
