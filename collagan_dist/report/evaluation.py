"""One evaluation (metrics.json or an eval line) as flat numbers: "psnr", "dice/face", "landmark_error/mean"."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from collagan_dist.runs.thinning import is_number

Numbers = dict[str, float]

# Numbers that say what was evaluated or when, not how well. Any other is a metric, so that a new task needs no entry here.
_NOT_METRICS = {"step", "samples", "epoch", "time", "seed", "seconds", "world_size", "version", "damaged", "ranks"}
# Parts of an evaluation that are read on their own, or say how it was made.
_NOT_SCORES = ("se/", "baselines/", "baselines_subset/", "settings/", "features/", "machine/")


@dataclass(frozen=True)
class EvaluationScores:
    """Metrics of one evaluation. `errors` are standard errors of `values`; `baselines` has the same keys for each baseline.

    `variant` says which data or settings are not the run's own. `positions` is "fixed" where O1 to O6 were at fixed boxes.
    `baseline_samples` is how many samples the baselines were measured on, where these were only the first; `on_baseline_samples` are
    the `values` on these.
    """

    values: Numbers
    errors: Numbers
    baselines: dict[str, Numbers]
    split: str = ""
    hole: str = ""
    blend: str = ""
    samples: int | None = None
    step: int | None = None
    positions: str = ""
    baseline_samples: int | None = None
    on_baseline_samples: Numbers = field(default_factory=dict)
    variant: str = ""

    @property
    def subject(self) -> tuple[str, ...]:
        # Two evaluations of one subject are compared; of two subjects they are different results.
        return self.split, self.hole, self.blend, self.positions, self.variant

    @property
    def name(self) -> str:
        """What was evaluated, in words."""
        parts = [self.split and f"split {self.split}", self.hole and f"hole {self.hole}", self.positions]
        parts.append(self.blend and f"blended ({self.blend})")
        parts.append(self.variant and f"other {self.variant}")
        return ", ".join(part for part in parts if part) or "evaluation"

    def beside_baselines(self, key: str) -> tuple[float | None, float | None]:
        """Return the value of a metric on the samples of the baselines, and its standard error."""
        value, error = self.values.get(key), self.errors.get(key)
        if key not in self.on_baseline_samples or not self.samples or not self.baseline_samples:
            return value, error
        # The error of these samples is not recorded. That of a mean falls with the square root of their number.
        larger = math.sqrt(self.samples / self.baseline_samples)
        return self.on_baseline_samples[key], None if error is None else error * larger


def parse_evaluation(raw: Mapping[str, Any]) -> EvaluationScores:
    """Read an evaluation with nested or flattened ("dice/face", "dice.face") keys."""
    flat = dict(_flatten(raw))
    numbers = {key: float(value) for key, value in flat.items() if is_number(value)}
    baselines: dict[str, Numbers] = {}
    for key, value in numbers.items():
        if key.startswith("baselines/") and key.count("/") >= 2:
            _, name, rest = key.split("/", 2)
            baselines.setdefault(name, {})[rest] = value
    # Only O1 to O6 have positions.
    at_boxes = flat.get("settings/positions") == "fixed" and _text(flat.get("hole")).startswith("O")
    positions = "fixed" if at_boxes else ""
    samples, step, subset = numbers.get("samples"), numbers.get("step"), numbers.get("baselines_subset/samples")
    return EvaluationScores(
        values={key: value for key, value in numbers.items() if _is_metric(key)},
        errors=_below("se/", numbers),
        baselines={name: values for name, values in baselines.items() if values},
        split=_text(flat.get("split")),
        hole=_text(flat.get("hole")),
        blend=_text(flat.get("blend")),
        samples=None if samples is None else int(samples),
        step=None if step is None else int(step),
        positions=positions,
        baseline_samples=None if subset is None else int(subset),
        on_baseline_samples=_below("baselines_subset/model/", numbers),
    )


def _flatten(raw: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in raw.items():
        # Flattened keys may have dots where nested ones get slashes.
        path = f"{prefix}{str(key).replace('.', '/')}"
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{path}/")
        else:
            yield path, value


def _below(prefix: str, numbers: Numbers) -> Numbers:
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


def _is_metric(key: str) -> bool:
    return not key.startswith(_NOT_SCORES) and key not in _NOT_METRICS


def _text(value: object) -> str:
    # A blend that is off is written as null, false or "none".
    return "" if value in (None, False, "none") else str(value)
