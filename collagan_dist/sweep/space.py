"""SPACE.yaml: what a sweep searches, for which metric, how. Checked whole before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import config_to_dict, get_nested, set_nested, validate_config
from collagan_dist.config.models import PEERS, TASK_WEIGHTS
from collagan_dist.config.strict_yaml import Lines, Section
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.sweep.dimensions import Choice, Dimension, Interval, Simplex

# Metric: (its better direction, the task that has it).
METRICS: dict[str, tuple[str, str]] = {
    "psnr": ("max", "inpainting"), "psnr_hole": ("max", "inpainting"),
    "ssim": ("max", "inpainting"), "ssim_hole": ("max", "inpainting"),
    "dice": ("max", "segmentation"), "dice_hole": ("max", "segmentation"), "dice_per_image": ("max", "segmentation"),
    "landmark_error": ("min", "landmarks"), "landmark_error_hole": ("min", "landmarks"),
}  # fmt: skip
# What changes nothing of what is learned, or changes what trials are compared on or how far they go.
_NOT_SEARCHED = ("data.shards", "data.cache", "data.split", "data.threads", "data.max_damaged", "data.image_size", "data.face_square",
                 "model.name", "model.tasks", "runtime", "checkpoint", "evaluate", "log", "seed", "hole", "deterministic", "schedule.steps",
                 "schedule.epochs")  # fmt: skip
_CHANGED_ON_THE_WAY = ("loss.", "optim.")  # what a run can change between two of its steps

Pair = tuple[float, float]


class Rungs(Section):
    first: Annotated[int, Field(ge=1)] | None = None
    """Samples after which trials are compared first; null: a run's length divided by `factor` twice."""
    factor: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on from a rung; the next rung is so many times as far."""


class Pbt(Section):
    every: Annotated[int, Field(ge=1)] | None = None
    """Samples of a generation; null: a tenth of a run."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the members, at least one, that give up theirs for weights and values of one of the best so many."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability that a copied value is drawn anew instead of being moved by a factor of 1.2."""


class Domain(Section):
    """The values of one key: exactly one of these."""

    model_config = ConfigDict(populate_by_name=True)

    uniform: Pair | None = None
    loguniform: Pair | None = None
    integers: tuple[int, int] | None = None
    choice: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None
    simplex: Annotated[float, Field(gt=0)] | None = None
    """Values of all the keys that `*` stands for which add up to this, none more likely than others."""

    @model_validator(mode="after")
    def _one(self) -> Domain:
        if len(self.model_fields_set) != 1 or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError(f"needs exactly one of {', '.join(Domain.model_fields)}")
        if twice := [value for n, value in enumerate(self.choice or ()) if value in (self.choice or ())[:n]]:
            raise ValueError(f"choice: {twice[0]!r} is given twice")
        if (pair := self.uniform or self.loguniform or self.integers) and not pair[0] < pair[1]:
            raise ValueError(f"[{pair[0]:g}, {pair[1]:g}] is no range: the first value must be below the second")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform: both ends must be above 0")
        return self


class SpaceSpec(Section):
    """SPACE.yaml as it is written."""

    metric: str | tuple[str, ...]
    """What is best, of the evaluation on `evaluate.split`; several for search: nsga2."""
    mode: Literal["max", "min"] | tuple[Literal["max", "min"], ...] | None = None
    """Its better direction, which is known; for who wants to see it written."""
    scheduler: Literal["asha", "sync_halving", "pbt", "none"] = "none"
    search: Literal["random", "grid", "tpe", "nsga2"] = "random"
    rungs: Rungs = Rungs()
    pbt: Pbt = Pbt()
    space: Annotated[dict[str, Domain], Field(min_length=1)]

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,) if isinstance(self.metric, str) else self.metric

    @model_validator(mode="after")
    def _makes_sense(self) -> SpaceSpec:
        metrics = self.metrics
        if not metrics or len(set(metrics)) != len(metrics):
            raise ValueError("metric: name at least one, each once")
        for name in metrics:
            if name not in METRICS:
                raise ValueError(f"metric: there is none of the name {name!r}; choose from {', '.join(METRICS)}")
        known = tuple(METRICS[name][0] for name in metrics)
        if self.mode is not None and ((self.mode,) if isinstance(self.mode, str) else self.mode) != known:
            raise ValueError(f"mode: of {', '.join(metrics)} it is {', '.join(known)}; leave it out")
        if len(metrics) > 1 and self.search != "nsga2":
            raise ValueError(
                f"search: {self.search} seeks the best of one metric; for {len(metrics)} take nsga2, or name one metric"
            )
        if len(metrics) == 1 and self.search == "nsga2":
            raise ValueError("search: nsga2 is for several metrics; for one take tpe or random")
        if self.search == "nsga2" and self.scheduler != "none":
            raise ValueError(
                f"scheduler: {self.scheduler} stops trials by one metric; with nsga2 all go to the end: none"
            )
        if self.scheduler == "pbt" and self.search != "random":
            raise ValueError(
                f"search: pbt changes its members by itself; {self.search} would never be asked again: random"
            )
        if self.scheduler == "sync_halving" and self.search == "tpe":
            raise ValueError("search: with sync_halving all trials begin before the first is finished, so tpe has nothing to learn from: "
                             "random, or scheduler: asha")  # fmt: skip
        return self


class Space:
    """A checked space for one base configuration. `keys` are the searched ones, in order."""

    def __init__(self, tree: SpaceSpec, base: Config, where: str, lines: Lines) -> None:
        self.spec, self.where, self._lines = tree, where, lines
        self.base = config_to_dict(base)
        self.dimensions = tuple(self._dimensions())
        self.keys = tuple(key for dimension in self.dimensions for key in dimension.keys)
        self._check(base)

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.spec.metrics

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(METRICS[name][0] for name in self.metrics)

    def config(self, values: dict[str, Any], **more: Any) -> Config:
        """The base configuration with values of the searched keys, and of others. Raises ConfigError."""
        tree = deepcopy(self.base)
        for key, value in {**values, **more}.items():
            set_nested(tree, tuple(key.split(".")), value)
        lines: dict[tuple[str, ...], int | str] = {tuple(key.split(".")): self._place(key) for key in values}
        return validate_config(
            tree, f"{self.where}, {', '.join(f'{key}={value}' for key, value in values.items())}", lines
        )

    def starts(self) -> list[tuple[str, dict[str, Any]]]:
        """(role, values) of what is tried before anything is searched: the paper's λ (section 4.2), and the base configuration's.

        The paper has none for its peers.
        """
        base = {key: get_nested(self.base, *key.split(".")) for key in self.keys}
        tasks = self.base["model"]["tasks"]
        paper = dict(base)
        for number, part in enumerate(("adv", "rec")):
            for task in tasks:
                if (key := f"loss.weights.{task}.{part}") in paper:
                    paper[key] = TASK_WEIGHTS[task][min(len(tasks), 3) - 1][number]
        peer = self.base["model"]["name"].upper() in PEERS
        if peer or not any(key.startswith("loss.weights.") for key in self.keys):
            return [("base", base)]
        return [("paper", paper)] + ([("base", base)] if base != paper else [])

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of values, the last key's changing fastest."""
        combinations: list[dict[str, Any]] = [{}]
        for dimension in self.dimensions:
            assert isinstance(dimension, Choice)
            combinations = [{**one, dimension.key: value} for one in combinations for value in dimension.choices]
        return combinations

    def _dimensions(self) -> Iterator[Dimension]:
        for pattern, domain in self.spec.space.items():
            keys = list(_expand(self.base, pattern.split(".")))
            if not keys:
                self._refuse(pattern, f"there is no such key in the configuration{_hint(self.base, pattern)}")
            if domain.simplex is not None:
                if len(keys) < 2:
                    self._refuse(
                        pattern, "a simplex needs at least two keys, named by `*` as in loss.weights.*.adv; of this model there is one: "
                        "leave it out, or give it another domain",
                    )  # fmt: skip
                yield Simplex(tuple(keys), domain.simplex)
                continue
            for key in keys:
                if domain.choice is not None:
                    yield Choice(key, domain.choice)
                else:
                    low, high = domain.uniform or domain.loguniform or domain.integers or (0, 1)
                    yield Interval(key, low, high, log=domain.loguniform is not None, whole=domain.integers is not None)

    def _check(self, base: Config) -> None:
        if twice := [key for key in self.keys if self.keys.count(key) > 1]:
            self._refuse(twice[0], "is searched twice")
        for key in self.keys:
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _NOT_SEARCHED):
                self._refuse(
                    key,
                    "cannot be searched: it says how or how far a trial is trained or scored, and all are to be compared alike",
                )
            if self.spec.scheduler == "pbt" and not key.startswith(_CHANGED_ON_THE_WAY):
                self._refuse(
                    key,
                    "pbt changes values while a run is trained, and this one cannot change then; only loss.* and optim.* can",
                )
        for metric in self.metrics:
            if METRICS[metric][1] not in base.model.tasks:
                has = ", ".join(name for name, (_, task) in METRICS.items() if task in base.model.tasks)
                raise ConfigError(f"{self.where}:{self._lines.get(('metric',), 1)}: metric: {metric} is of {METRICS[metric][1]}, and the model has "
                                  f"no such task; it has {has or 'none that is known'}")  # fmt: skip
            if metric.endswith("_hole") and (base.evaluate.hole or base.hole.kind) == "none":
                raise ConfigError(f"{self.where}:{self._lines.get(('metric',), 1)}: metric: there are no holes to measure {metric} in; take "
                                  f"{metric.removesuffix('_hole')}, or set evaluate.hole")  # fmt: skip
        if self.spec.search == "grid":
            for dimension in self.dimensions:
                if not isinstance(dimension, Choice):
                    self._refuse(dimension.keys[0], "a grid needs its values one by one: {choice: [...]}")
        for corner in self.corners():
            self.config(corner)  # what no configuration can have is said now

    def corners(self) -> Iterator[dict[str, Any]]:
        """Both ends, or every choice, of one dimension at a time."""
        for dimension in self.dimensions:
            yield from dimension.ends()

    def _refuse(self, key: str, why: str) -> None:
        raise ConfigError(f"{self._place(key)}: {key}: {why}")

    def _place(self, key: str) -> str:
        """File and line that speak of a key; the last of several."""
        lines = [
            n for path, n in self._lines.items() if path[0] == "space" and len(path) == 2 and _matches(path[1], key)
        ]
        return f"{self.where}:{lines[-1]}" if lines else self.where


def read_space(source: str, base: Config) -> Space:
    """The space of a YAML file for a base configuration. Raises ConfigError with file, line and how to mend it."""
    text = strict_yaml.read_text(Path(source), "space", "give a YAML file; cluster/sweep.yaml is one for λ")
    tree, lines = strict_yaml.load(text, source)
    known: dict[tuple[str, ...], int | str] = dict(lines)
    return Space(strict_yaml.validate(SpaceSpec, tree, source, known), base, source, known)


def _expand(tree: Any, path: list[str], done: str = "") -> Iterator[str]:
    """Keys of the configuration that a pattern stands for; `*` is any one name."""
    if not path:
        if not isinstance(tree, dict):
            yield done
        return
    for key in tree if isinstance(tree, dict) else ():
        if path[0] in (key, "*"):
            yield from _expand(tree[key], path[1:], f"{done}.{key}" if done else key)


def _matches(pattern: str, key: str) -> bool:
    one, other = pattern.split("."), key.split(".")
    return pattern == key or (len(one) == len(other) and all(a in (b, "*") for a, b in zip(one, other, strict=True)))


def _hint(tree: dict[str, Any], pattern: str) -> str:
    """The nearest key, for an error."""
    import difflib

    near = difflib.get_close_matches(pattern, list(_leaves(tree)), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key
