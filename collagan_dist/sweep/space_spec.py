"""The content of SPACE.yaml as a validated model: metrics, constraints, scheduler, search and the domain of each searched key."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from collagan_dist.config.strict_yaml import Section

# Metric: (its better direction, the task that has it).
METRICS: dict[str, tuple[str, str]] = {
    "psnr": ("max", "inpainting"), "psnr_hole": ("max", "inpainting"),
    "ssim": ("max", "inpainting"), "ssim_hole": ("max", "inpainting"),
    "frechet": ("min", "inpainting"), "perceptual": ("min", "inpainting"),
    "dice": ("max", "segmentation"), "dice_hole": ("max", "segmentation"), "dice_per_image": ("max", "segmentation"),
    "landmark_error": ("min", "landmarks"), "landmark_error_hole": ("min", "landmarks"),
}  # fmt: skip

Pair = tuple[float, float]


class Rungs(Section):
    first: Annotated[int, Field(ge=1)] | None = None
    """Samples up to the first rung; null: a full run's divided by `factor` twice."""
    factor: Annotated[int, Field(ge=2)] = 3
    """One of `factor` trials is promoted from a rung; the next rung is `factor` times as long."""


class Pbt(Section):
    every: Annotated[int, Field(ge=1)] | None = None
    """Samples of a generation; null: a tenth of a full run."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the population, at least one member, that is replaced by copies from as large a share of the best."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that a copied value is drawn anew instead of being perturbed by a factor of 1.2."""


class Bounds(Section):
    """The values that a metric may have at the end of a trial; each bound is included."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"no value is from {self.min:g} to {self.max:g}; min must not be above max")
        return self


def constraint_values(constraints: Mapping[str, Bounds], metrics: Mapping[str, float]) -> dict[str, float]:
    """Return by how much metrics break each constraint, named as "dice below 0.5"; 0 or less where they keep it.

    In units of the bound's size, so that bounds of different metrics can be added up; infinite without a number.
    """
    found = {}
    for name, bounds in constraints.items():
        for bound, sign, word in ((bounds.min, -1, "below"), (bounds.max, 1, "above")):
            if bound is not None:
                beyond = sign * (metrics[name] - bound) / (abs(bound) or 1.0) if name in metrics else inf
                found[f"{name} {word} {bound:g}"] = beyond
    return found


class Domain(Section):
    """The values of one key: exactly one of these fields."""

    model_config = ConfigDict(populate_by_name=True)

    uniform: Pair | None = None
    loguniform: Pair | None = None
    integers: tuple[int, int] | None = None
    choice: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None
    simplex: Annotated[float, Field(gt=0)] | None = None
    """Non-negative values of all the keys that `*` stands for, uniform over all that add up to this number."""

    @model_validator(mode="after")
    def _check(self) -> Domain:
        # `uniform: null` sets a field too, but gives no domain.
        if len(self.model_fields_set) != 1 or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError(f"needs exactly one of {', '.join(Domain.model_fields)}")
        # Compared by ==, not by hash: choices can be lists, and 100 and 100.0 would be one and the same trial.
        if twice := [value for n, value in enumerate(self.choice or ()) if value in (self.choice or ())[:n]]:
            raise ValueError(f"choice: {twice[0]!r} is given twice")
        if (pair := self.uniform or self.loguniform or self.integers) and not pair[0] < pair[1]:
            raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] is no range: the first value must be below the second")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform: both ends must be above 0")
        return self


class SpaceSpec(Section):
    """The whole of SPACE.yaml."""

    metric: str | tuple[str, ...]
    """What is optimised, of the evaluation on `evaluate.split`. Of several, trials are compared by domination."""
    mode: Literal["max", "min"] | tuple[Literal["max", "min"], ...] | None = None
    """The better direction of each metric. It is known, but may be stated."""
    scheduler: Literal["asha", "sync_halving", "pbt", "none"] = "none"
    search: Literal["random", "grid", "tpe", "nsga2"] = "random"
    constraints: dict[str, Bounds] = {}
    """Bounds of metrics. Trials that break one rank behind all that keep them, and are never the best."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """Seeds with which each configuration is trained; the mean over them is its result."""
    start: Annotated[tuple[dict[str, Any], ...], Field(min_length=1)] | None = None
    """Values of searched keys that are tried before the search; keys that are left out are the base configuration's."""
    rungs: Rungs = Rungs()
    pbt: Pbt = Pbt()
    space: Annotated[dict[str, Domain], Field(min_length=1)]

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @model_validator(mode="after")
    def _check_metrics(self) -> SpaceSpec:
        metrics = self.metrics
        if not metrics or len(set(metrics)) != len(metrics):
            raise ValueError("metric: name at least one, each once")
        for key, name in [
            *(("metric", name) for name in metrics),
            *((f"constraints.{name}", name) for name in self.constraints),
        ]:
            if name not in METRICS:
                raise ValueError(f"{key}: there is none of the name {name!r}; choose from {', '.join(METRICS)}")
        # A direction that contradicts the metric is a mistake about the metric, so it is not obeyed.
        known = tuple(METRICS[name][0] for name in metrics)
        if self.mode is not None and ((self.mode,) if isinstance(self.mode, str) else self.mode) != known:
            raise ValueError(f"mode: of {', '.join(metrics)} it is {', '.join(known)}; leave it out")
        return self

    @model_validator(mode="after")
    def _check_combination(self) -> SpaceSpec:
        """Refuse combinations of search and scheduler in which one of the two could not do its work."""
        search, scheduler, metrics = self.search, self.scheduler, self.metrics
        if len(metrics) == 1 and search == "nsga2":
            raise ValueError("search: nsga2 is for several metrics; for one take tpe or random")
        if scheduler == "pbt" and search != "random":
            raise ValueError(f"search: pbt changes its members by itself, so {search} has no effect: random")
        if scheduler == "pbt" and self.repeats > 1:
            why = "pbt changes the values of a run while it trains, so there is no configuration to repeat"
            raise ValueError(f"repeats: {why}: leave it out, or scheduler: asha")
        # A value of a key that is no choice of it would be no point of the grid, and one that is would be trained twice.
        if search == "grid" and self.start:
            raise ValueError("start: a grid tries all of its points anyway; leave it out")
        # All trials of sync_halving start before the first has a result.
        if scheduler == "sync_halving" and search in ("tpe", "nsga2"):
            why = f"with sync_halving all trials start before the first is finished, so {search} has nothing to learn from"
            raise ValueError(f"search: {why}: random, or scheduler: asha")
        return self
