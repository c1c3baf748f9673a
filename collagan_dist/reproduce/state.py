"""What is done already: a run at its last step, an evaluation of that step. All of it is read from the files themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collagan_dist import config as configuration
from collagan_dist import files
from collagan_dist.errors import CheckpointError
from collagan_dist.reproduce.plan import Run

# Of `evaluate`, what says when a training run looks at itself, not how.
_NOT_HOW = ("every", "split", "hole", "baselines")


def steps_done(run: Run) -> int:
    """The step of the newest checkpoint, 0 without one."""
    return max((step for step, _ in _checkpoints(run)), default=0)


def is_trained(run: Run) -> bool:
    return steps_done(run) == run.steps


def check(run: Run, manifest: str) -> None:
    """Raises CheckpointError when the run folder holds the training of another configuration, or a longer one."""
    newest = max(_checkpoints(run), default=None)
    if newest is None:
        return
    step, folder = newest
    try:
        identity = json.loads((folder / "state.json").read_bytes())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # damaged: `collagan train` takes the one before it, and says so
    mend = f"give the options of the first time, another --out, or remove {run.folder}"
    if changes := configuration.differences(identity, configuration.identity(run.config, manifest)):
        lines = "\n  ".join([f"{run.folder}: was trained by another configuration:", *changes])
        raise CheckpointError(f"{lines}\n{mend}")
    if step > run.steps:
        raise CheckpointError(f"{run.folder}: is at step {step}, beyond the {run.steps} steps asked for; {mend}")


def is_scored(run: Run, hole: str, blended: bool, manifest: str) -> bool:
    """Whether the evaluation is that of the run's last step, on these shards, by the present settings."""
    path = run.evaluation(hole, blended)
    metrics = _json(path)
    same = metrics.get("step") == run.steps and metrics.get("manifest") == manifest
    return same and path.with_suffix(".npz").is_file() and _json(_note(run)).get(hole) == settings(run)


def unscored(run: Run, manifest: str) -> list[str]:
    """The holes whose evaluations are missing."""
    return [
        hole
        for hole, both in run.holes.items()
        if not all(is_scored(run, hole, blended, manifest) for blended in ((False, True) if both else (False,)))
    ]


def note_scored(run: Run, holes: list[str]) -> None:
    """Remember by which settings holes were scored: the evaluations themselves do not say."""
    note = _note(run)
    note.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(note, _json(note) | dict.fromkeys(holes, settings(run)))


def settings(run: Run) -> dict[str, Any]:
    """What decides an evaluation's numbers beside the model and the shards."""
    tree = configuration.dump(run.config)["evaluate"]
    return {key: value for key, value in tree.items() if key not in _NOT_HOW}


def _note(run: Run) -> Path:
    return run.out / "scored" / f"{run.name}.json"


def _json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none, or a damaged one."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _checkpoints(run: Run) -> list[tuple[int, Path]]:
    """(step, folder) of the committed checkpoints."""
    folder = run.folder / "checkpoints"
    found = folder.glob("step-*") if folder.is_dir() else ()
    return [(int(path.name[5:]), path) for path in found if path.name[5:].isdigit() and (path / "manifest.json").is_file()]
