import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.config.load import config_to_dict, identity_keys
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import CheckpointError
from collagan_dist.runs.checkpoint_state import config_changes, parse_state, read_state, stored_identity
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.run_folders import events, rewrite_state
from tests.training.small import equal, small, weights

STORED = Path(__file__).parent / "checkpoint_v1"  # written by the program before formats had a 2
CONFIG = {
    "model": {"widths": {"generator": 1, "discriminator": 1}, "tasks": ["inpainting"]},
    "optim": {}, "log__every": 1, "checkpoint__keep": 2,
}  # fmt: skip


def test_format_1_is_read_as_the_present_one():
    old = json.loads((STORED / "state.json").read_bytes())
    assert old["format"] == 1 and "parser" not in old
    state = parse_state(STORED, old)
    assert (state["step"], state["skipped_batches"], state["bad_row"]) == (2, [], [])
    assert state["format"] == 2 and state["parser"] is state["init"] is None
    assert read_state(STORED) == state


def test_a_run_of_format_1_goes_on(shards, tmp_path, capsys):
    """As if its checkpoint had been written today, keys that it did not know at their defaults."""
    for run in ("old", "new"):
        path = Path(shutil.copytree(STORED, tmp_path / run / "checkpoints/step-00000002"))
        rewrite_state(path, lambda state: state.update(manifest=shards.hash))
        (tmp_path / run / "lease").write_text("1 89ab\n")

    def as_today(state: dict[str, Any]) -> None:
        del state["identity"]
        state.update(format=2, parser=None, generation=1)

    rewrite_state(path, as_today)
    for run in ("old", "new"):
        train(small(shards.folder, **CONFIG, schedule__steps=4), tmp_path / run, World())
        assert [event["step"] for event in events(tmp_path / run, "resume")] == [2]
    assert "warning" not in capsys.readouterr().err
    assert equal(weights(tmp_path / "old", 4), weights(tmp_path / "new", 4))
    assert json.loads((tmp_path / "old/checkpoints/step-00000004/state.json").read_bytes())["format"] == 2


def state_of(shards: Manifest, **changes: Any) -> dict[str, Any]:
    config = config_to_dict(small(shards.folder, **changes))
    return {
        "format": 2,
        "step": 2,
        "skipped_batches": [],
        "config": config,
        "manifest": "m",
        "parser": None,
        "init": None,
    }


def test_changes_are_named_by_key(shards):
    """What is learned counts; how it is evaluated, logged or spread does not, nor keys that came since."""
    now = identity_keys(small(shards.folder), "m")
    other = {"optim__ema": 0.5, "log__every": 7, "evaluate__samples": 3, "runtime__threads": 2, "schedule__steps": 9}
    assert config_changes(Path("c"), state_of(shards, **other), now) == ["optim.ema: 0.5 -> 0.9"]
    older = state_of(shards)
    del older["config"]["optim"]["generator"]["clip"]
    assert stored_identity(older, "c") == now
    assert config_changes(Path("c"), {**older, "manifest": "n"}, now) == ["manifest: n -> m"]


def test_what_is_no_state_is_refused(shards):
    state = state_of(shards)
    for damage in (
        {"step": -1},
        {"skipped_batches": ["a"]},
        {"skipped_batches": None},
        {"bad_row": [-1]},
        {"bad_row": 3},
        {"config": 1},
        {"format": None},
    ):
        damaged = {key: value for key, value in {**state, **damage}.items() if key != "format" or value}
        with pytest.raises(CheckpointError, match=r"^c: state.json is not one of ours"):
            parse_state(Path("c"), damaged)
