"""How far a run of a reproduction is: trained to its last step, and evaluated at that step. Read from the run folder itself."""

from __future__ import annotations

import json
from typing import Any

from collagan_dist import structured
from collagan_dist.config.load import config_to_dict, differences, identity_keys
from collagan_dist.config.tree import Schedule
from collagan_dist.errors import CheckpointError
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.runs.checkpoint_state import read_state, stored_identity
from collagan_dist.runs.evaluation_name import evaluation_settings
from collagan_dist.runs.layout import RunPaths


def steps_done(run: PlannedRun) -> int:
    """Return the step of the newest checkpoint, 0 without one."""
    return max(RunPaths(run.folder).committed_steps(), default=0)


def is_trained(run: PlannedRun) -> bool:
    return steps_done(run) == run.steps


def check_same_training(run: PlannedRun, manifest: str) -> None:
    """Raise CheckpointError when the run folder holds the training of another configuration, or of another length."""
    paths = RunPaths(run.folder)
    for folder in map(paths.checkpoint, reversed(paths.committed_steps())):
        try:
            state = read_state(folder)
            then = _with_length(stored_identity(state, str(folder)), state["config"])
        except (OSError, CheckpointError, KeyError, TypeError):
            continue  # damaged: `collagan train` takes the one before it, too, and says so
        now = _with_length(_identity(run, manifest), config_to_dict(run.config))
        if changes := differences(then, now):
            lines = "\n  ".join([f"{run.folder}: was trained by another configuration:", *changes])
            raise CheckpointError(f"{lines}\ngive the options of the first time, another --out, or remove {run.folder}")
        return


def _identity(run: PlannedRun, manifest: str) -> dict[str, Any]:
    if run.config.model.name != "gfc" and run.config.model.init is None:
        return identity_keys(run.config, manifest)
    from collagan_dist.runs.run_folder import run_identity  # reads the weights of other models

    return run_identity(run.config, manifest)


def _with_length(identity: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    # A training may be made longer, a run of a reproduction may not: its length decides when losses join, when the
    # stages of GFC begin and when learning rates fall.
    length = {key: tree["schedule"][key] for key in ("batch", "steps", "adv_from")}
    # As a step: a share that gives the same step is the same training.
    length["adv_from"] = Schedule(adv_from=length["adv_from"]).adversarial_start(length["steps"])
    return identity | {"schedule": length}


class _Evaluated(structured.Record):
    """What of an evaluation says of which training and with which settings it is."""

    step: int | None = None
    manifest: str | None = None
    settings: dict[str, Any] | None = None


def is_evaluated(run: PlannedRun, hole: str, blended: bool, manifest: str) -> bool:
    """Return whether there is an evaluation of the run's last step, on these shards, with the present settings."""
    found = structured.find(run.evaluation(hole, blended), _Evaluated)
    now = _Evaluated(step=run.steps, manifest=manifest, settings=evaluation_settings(run.config))
    return found == now


def not_evaluated(run: PlannedRun, manifest: str) -> dict[bool, list[str]]:
    """Return the holes whose evaluations are missing, by whether blended ones are needed too."""
    found: dict[bool, list[str]] = {}
    for hole, both in run.holes.items():
        if not all(is_evaluated(run, hole, blended, manifest) for blended in ((False, True) if both else (False,))):
            found.setdefault(both, []).append(hole)
    return found


def evaluated_earlier_step(run: PlannedRun, manifest: str) -> bool:
    """Return whether an evaluation is of an earlier step than the last.

    Right after evaluating, that means that the last checkpoint is damaged.
    """
    holes = [(hole, blended) for blended, found in not_evaluated(run, manifest).items() for hole in found]
    known = [structured.find(run.evaluation(hole, blended), _Evaluated) for hole, blended in holes]
    return any(one is not None and one.step is not None and one.step < run.steps for one in known)


def changed_evaluation_settings(run: PlannedRun) -> list[str]:
    """Return `--set` items that evaluate the run as it is planned now, not as it was trained to be."""
    from collagan_dist.runs.model_folder import read_config

    # The run folder keeps the settings of its training; the user may have asked for others since.
    then, now = evaluation_settings(read_config(run.folder)), evaluation_settings(run.config)
    wanted = config_to_dict(run.config)["evaluate"]
    # A key at its default may be absent on one side.
    changed = [key for key in wanted if then.get(key) != now.get(key)]
    return [f"evaluate.{key}={json.dumps(wanted[key])}" for key in changed]
