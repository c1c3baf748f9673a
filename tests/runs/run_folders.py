"""What tests of run folders share: a small run's configuration, and what its folder says."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collagan_dist.config.load import to_yaml
from collagan_dist.config.tree import Config
from collagan_dist.runs.layout import RunPaths

STEPS = 9
SAVING: dict[str, Any] = {
    "checkpoint__every": 2, "checkpoint__keep": 2, "schedule__steps": STEPS, "schedule__adv_from": 3,
}  # fmt: skip
KEPT = ["step-00000008", "step-00000009"]
SINKS = ["jsonl", "tensorboard"]
# Train lines at 2, 4, 6, 8 and 9, evaluations at 3, 6 and 9, grids at 4, 8 and 9.
LOGGING = {"log": {"every": 2, "grid_every": 4, "sinks": SINKS}, "evaluate__every": 3, "evaluate__samples": 4}


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    # A line that is being written at this moment has no end yet.
    found = [json.loads(line) for line in RunPaths(run).metrics_log.read_text().rpartition("\n")[0].splitlines()]
    return [line for line in found if line["kind"] == kind]


def events(run: Path, name: str) -> list[dict[str, Any]]:
    return [line for line in lines(run, "event") if line["event"] == name]


def checkpoint_names(run: Path) -> list[str]:
    return sorted(path.name for path in RunPaths(run).checkpoints.iterdir())


def write_config(config: Config, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(to_yaml(config))
    return path


def rewrite_state(checkpoint: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change state.json of a checkpoint as its writer would have, with its hash."""
    state, manifest = (json.loads((checkpoint / name).read_bytes()) for name in ("state.json", "manifest.json"))
    change(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    manifest["sha256"]["state.json"] = hashlib.sha256((checkpoint / "state.json").read_bytes()).hexdigest()
    manifest["step"] = state["step"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def rehash(checkpoint: Path, name: str) -> None:
    """Write the hash of a file that was changed into a checkpoint's manifest."""
    if name == "manifest.json":
        return
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
