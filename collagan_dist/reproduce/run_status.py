"""What is done already: a run at its last step, an evaluation of that step. All of it is read from the files themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collagan_dist.config.load import config_to_dict, differences, identity_keys
from collagan_dist.errors import CheckpointError
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.runs.checkpoint_state import read_state, stored_identity
from collagan_dist.runs.layout import RunPaths


def steps_done(run: PlannedRun) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max(RunPaths(run.folder).committed_steps(), default=0)


def is_trained(run: PlannedRun) -> bool:
    return steps_done(run) == run.steps


def check(run: PlannedRun, manifest: str) -> None:
    """Raises CheckpointError when the run folder holds the training of another configuration, or one of another length.

    A training is free to grow longer; a reproduction is not, for when losses join, stages begin and learning rates fall hangs on its length.
    """
    paths = RunPaths(run.folder)
    for folder in map(paths.checkpoint, reversed(paths.committed_steps())):
        try:
            state = read_state(folder)
            then = _learned(stored_identity(state, str(folder)), state["config"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # damaged: `collagan train` takes the one before it, too, and says so
        now = _learned(_identity(run, manifest), config_to_dict(run.config))
        if changes := differences(then, now):
            lines = "\n  ".join([f"{run.folder}: was trained by another configuration:", *changes])
            raise CheckpointError(f"{lines}\ngive the options of the first time, another --out, or remove {run.folder}")
        return


def _identity(run: PlannedRun, manifest: str) -> dict[str, Any]:
    if run.config.model.name != "gfc":
        return identity_keys(run.config, manifest)
    from collagan_dist.runs.model_folder import run_identity  # which reads the parser's weights

    return run_identity(run.config, manifest)


def _learned(identity: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """What makes two trainings the same: what is learned, and for how long."""
    return identity | {"schedule": {key: tree["schedule"][key] for key in ("batch", "steps", "adv_from")}}


def is_scored(run: PlannedRun, hole: str, blended: bool, manifest: str) -> bool:
    """Whether the evaluation is that of the run's last step, on these shards, by the present settings."""
    from collagan_dist.inference.score import evaluation_settings

    metrics = _json(run.evaluation(hole, blended))
    about = {"step": run.steps, "manifest": manifest, "settings": evaluation_settings(run.config)}
    return all(metrics.get(key) == value for key, value in about.items())


def unscored(run: PlannedRun, manifest: str) -> dict[bool, list[str]]:
    """The holes whose evaluations are missing, by whether blended ones are needed too."""
    found: dict[bool, list[str]] = {}
    for hole, both in run.holes.items():
        if not all(is_scored(run, hole, blended, manifest) for blended in ((False, True) if both else (False,))):
            found.setdefault(both, []).append(hole)
    return found


def scored_before(run: PlannedRun, manifest: str) -> bool:
    """Whether an evaluation is of an earlier step than the last: right after scoring, the last checkpoint is damaged."""
    holes = [(hole, blended) for blended, found in unscored(run, manifest).items() for hole in found]
    steps = [_json(run.evaluation(hole, blended)).get("step") for hole, blended in holes]
    return any(isinstance(step, int) and step < run.steps for step in steps)


def other_settings(run: PlannedRun) -> list[str]:
    """`--set` items that make an evaluation of the run folder look at it as `run` asks now, not as it was trained to."""
    from collagan_dist.inference.score import evaluation_settings
    from collagan_dist.runs.model_folder import read_config

    then, now = evaluation_settings(read_config(run.folder)), evaluation_settings(run.config)
    return [f"evaluate.{key}={json.dumps(value)}" for key, value in now.items() if then[key] != value]


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none, or a damaged one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
