"""README.md of an exported model: what it is, what it learned from, how good it was, and what it cannot do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist import __version__, structured
from collagan_dist.config.load import changed_settings, model_label
from collagan_dist.config.tree import Config
from collagan_dist.runs.evaluation_name import describe_variant
from collagan_dist.runs.layout import RunPaths
from collagan_dist.types import CLASSES, LANDMARKS

LICENCE = "Apache-2.0"
# Parts of a result that are no metrics of the model, or say how it was made.
_NOT_METRICS = (
    "se",
    "baselines",
    "baselines_subset",
    "settings",
    "precision",
    "ranks",
    "machine",
    "version",
    "features",
    "samples",
    "step",
    "damaged",
    "hole_size",
)
_TASK_TEXTS = {
    "inpainting": "completes the hole of a picture",
    "segmentation": "segments the parts of the face",
    "landmarks": "finds five landmarks",
}


class _Data(structured.Record):
    """What is read of data.json."""

    dataset: str
    manifest: str
    splits: dict[str, int]


@dataclass(frozen=True)
class NetworkFile:
    """Another file of the same network, and by which program and how closely its numbers are torch's."""

    name: str
    compared_by: str
    difference: float

    def __str__(self) -> str:
        return f"`{self.name}`: compared with torch by {self.compared_by}; largest difference {self.difference:.1e}"


def model_card(model: Path, config: Config, step: int, networks: Sequence[NetworkFile] = ()) -> str:
    """Return the text of the card of a run folder, or of an exported one, whose data and evaluations are then unknown."""
    paths = RunPaths(model)
    parts = [
        _head(config, step, networks),
        _data(structured.find(paths.data, _Data)),
        _settings(config),
        _evaluations(paths, step),
        _limits(config),
        f"## Licence\n\n{LICENCE}, that of collagan_dist. The data set has terms of its own, which may restrict the model's use.",
    ]
    return "\n\n".join(parts) + "\n"


def _head(config: Config, step: int, networks: Sequence[NetworkFile]) -> str:
    does = ", ".join(_TASK_TEXTS.get(task, task) for task in config.model.tasks)
    size = config.data.image_size
    lines = [
        f"# {model_label(config.model)}",
        "",
        f"A model of collagan_dist {__version__} after {step:,} training steps, for faces of {size}×{size} pixels. It {does}.",
        "`collagan evaluate`, `complete` and `label` take this folder as it is. `manifest.json` has the sha256 of each file.",
        *([""] if networks else []),
        *(f"- {network}" for network in networks),
    ]
    return "\n".join(lines)


def _data(data: _Data | None) -> str:
    if data is None:
        return "## Data\n\nNot known: it was exported from a folder that does not say."
    splits = ", ".join(f"{name} {count:,}" for name, count in data.splits.items())
    return f"## Data\n\nReader `{data.dataset}`; samples: {splits}. sha256 of the shards' manifest: `{data.manifest}`."


def _settings(config: Config) -> str:
    preset, changed = changed_settings(config)
    head = f"## Training\n\nPreset `{preset}`"
    if not changed:
        return f"{head}, as it is. `config.yaml` has all settings."
    rows = "\n".join(f"| `{key}` | {_cell(value)} |" for key, value in changed.items())
    return f"{head}, but for these settings (`config.yaml` has all):\n\n| key | value |\n|---|---|\n{rows}"


def _evaluations(paths: RunPaths, step: int) -> str:
    files = [path for path in sorted(paths.evaluations.glob("*.json")) if not path.name.startswith(".")]
    tables = [table for path in files if (table := _evaluation(path, step))]
    if not tables:
        return "## Evaluation\n\nNone: `collagan evaluate` has not been run."
    note = "± is one standard error over samples. PSNR is in dB, landmark errors in pixels."
    return "\n\n".join([f"## Evaluation\n\n{note}", *tables])


def _evaluation(path: Path, step: int) -> str:
    """Return the table of one result; "" where it cannot be read as one."""
    try:
        found = structured.read_json(path)
    except (OSError, structured.Malformed):
        return ""
    if not isinstance(found, dict) or not isinstance(found.get("split"), str):
        return ""
    errors = dict(_numbers(se)) if isinstance(se := found.get("se"), Mapping) else {}
    metrics = {key: value for key, value in found.items() if key not in _NOT_METRICS}
    rows = [f"| {key} | {_number(value)} | {_number(errors.get(key))} |" for key, value in _numbers(metrics)]
    about = [f"split {found['split']}", f"hole {found.get('hole')}", f"{found.get('samples')} samples"]
    if found.get("blend") not in (None, "none"):
        about.append(f"blended ({found['blend']})")
    if variant := describe_variant(path.stem):
        about.append(f"other {variant}")
    if found.get("step") != step:  # the run has been trained on since
        about.append(f"of step {found.get('step')}, not of this model's")
    head = f"### {', '.join(map(_cell, about))}\n\n| metric | value | ± |\n|---|---|---|\n"
    return head + "\n".join(rows)


def _limits(config: Config) -> str:
    size, tasks = config.data.image_size, config.model.tasks
    lines = [
        f"- The network sees squares of {size}×{size} pixels around one face. What it completes in a larger picture is as coarse as that.",
        "- It knows faces of the kind it learned from: a model of drawn faces knows no photographs, one of photographs no drawings.",
        f"- It learned with holes of the kind `{config.hole.kind}`. Others may be completed worse.",
    ]
    if "inpainting" in tasks:
        lines.append("- A completion is invented. It does not show what was hidden, and identifies nobody.")
    if "segmentation" in tasks:
        classes = ", ".join(f"{number} {name}" for number, name in enumerate(CLASSES))
        lines.append(f"- Labels: {classes}. Left is left in the picture. They mean what those of its data set meant.")
    if "landmarks" in tasks:
        lines.append(f"- Landmarks: {', '.join(LANDMARKS)}, (x, y) in pixels, integers at pixel centres.")
    return "## Limits\n\n" + "\n".join(lines)


def _numbers(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{path}{key}", value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cell(value: object) -> str:
    # A table's cell ends at a bar or a line's end.
    return " ".join(str(value).split()).replace("|", "\\|")
