"""A search space checked against one base configuration: the searched keys, their dimensions, the configurations of trials.

Everything that cannot work is refused here, with file and line, before a sweep writes or starts anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, NoReturn

from collagan_dist.config import project_files, strict_yaml
from collagan_dist.config.load import config_to_dict, get_nested, leaves, set_nested, validate_config
from collagan_dist.config.models import PEERS, paper_weights
from collagan_dist.config.strict_yaml import Lines
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.sweep.dimensions import Choice, Dimension, Interval, Simplex
from collagan_dist.sweep.space_spec import METRICS, Domain, SpaceSpec, constraint_values

# Keys that do not change what is learned, and keys on which the comparison of trials rests (data, holes, evaluation, length).
_FIXED_KEYS = ("data.shards", "data.cache", "data.split", "data.keep", "data.threads", "data.max_damaged", "data.image_size", "data.face_square",
               "model.name", "model.tasks", "runtime", "checkpoint", "evaluate", "log", "seed", "hole", "deterministic", "schedule.steps",
               "schedule.epochs")  # fmt: skip
CHANGEABLE_KEYS = ("loss.", "optim.")  # prefixes of what a run can change when it resumes; PBT searches nothing else


class Space:
    """A search space for one base configuration. `keys` are the searched keys, in order."""

    def __init__(self, spec: SpaceSpec, base: Config, where: str, lines: Lines) -> None:
        self.spec, self.where, self._lines = spec, where, lines
        self.base = config_to_dict(base)
        self.dimensions = tuple(self._build_dimensions())
        self.keys = tuple(key for dimension in self.dimensions for key in dimension.keys)
        self._check_keys()
        for metric in self.metrics:
            self._check_metric(metric, base, ("metric",))
        for metric in self.spec.constraints:
            self._check_metric(metric, base, ("constraints", metric))
        for corner in self.corners():
            # Values that no configuration can have are reported now, not by the trial that draws them.
            self.config(corner)
        self._start_points = list(self._read_start_points())

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.spec.metrics

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(METRICS[name][0] for name in self.metrics)

    def constraint_values(self, metrics: Mapping[str, float]) -> dict[str, float]:
        return constraint_values(self.spec.constraints, metrics)

    def config(self, values: dict[str, Any], lines: Lines | None = None, **more: Any) -> Config:
        """Return the base configuration with these values of searched keys, and of `more` keys. Raises ConfigError.

        An error names a key's place in `lines`, by default that of its domain.
        """
        tree = deepcopy(self.base)
        for key, value in {**values, **more}.items():
            set_nested(tree, tuple(key.split(".")), value)
        lines = lines or {tuple(key.split(".")): self._location(key) for key in values}
        where = f"{self.where}, {', '.join(f'{key}={value}' for key, value in values.items())}"
        return validate_config(tree, where, lines)

    def initial_points(self) -> list[tuple[str, dict[str, Any]]]:
        """Return (role, values) of what is tried before the search: the paper's λ (section 4.2), the base configuration, `start`."""
        base = {key: get_nested(self.base, *key.split(".")) for key in self.keys}
        tasks = self.base["model"]["tasks"]
        paper = dict(base)
        for number, part in enumerate(("adv", "rec")):
            for task in tasks:
                if (key := f"loss.weights.{task}.{part}") in paper:
                    paper[key] = paper_weights(task, len(tasks))[number]
        # The paper gives no λ for the models that it compares with.
        peer = self.base["model"]["name"].upper() in PEERS
        if peer or not any(key.startswith("loss.weights.") for key in self.keys):
            points = [("base", base)]
        else:
            points = [("paper", paper)] + ([("base", base)] if base != paper else [])
        known = [values for _, values in points]
        return points + [("start", values) for values in self._start_points if values not in known]

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination of values; the last key changes fastest."""
        combinations: list[dict[str, Any]] = [{}]
        for dimension in self.dimensions:
            assert isinstance(dimension, Choice)  # see _check_keys
            combinations = [{**one, dimension.key: value} for one in combinations for value in dimension.choices]
        return combinations

    def corners(self) -> Iterator[dict[str, Any]]:
        """Yield both ends, or every choice, of one dimension at a time."""
        for dimension in self.dimensions:
            yield from dimension.corners()

    def _build_dimensions(self) -> Iterator[Dimension]:
        known = list(leaves(self.base))
        for pattern, domain in self.spec.space.items():
            keys = [key for key in known if _matches(pattern, key)]
            if not keys:
                near = difflib.get_close_matches(pattern, known, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                self._refuse(pattern, f"there is no such key in the configuration{hint}")
            if domain.simplex is None:
                yield from (_dimension(key, domain) for key in keys)
            elif len(keys) > 1:
                yield Simplex(tuple(keys), domain.simplex)
            else:
                # The only value of a single key would be the total, and nothing would be searched.
                why = "a simplex needs at least two keys, named by `*` as in loss.weights.*.adv; of this model there is one"
                self._refuse(pattern, f"{why}: leave it out, or give it another domain")

    def _check_keys(self) -> None:
        if twice := [key for key in self.keys if self.keys.count(key) > 1]:
            self._refuse(twice[0], "is searched twice")
        for key in self.keys:
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in _FIXED_KEYS):
                self._refuse(key, "cannot be searched: all trials must run, last and be scored alike to be comparable")
            if self.spec.scheduler == "pbt" and not key.startswith(CHANGEABLE_KEYS):
                self._refuse(
                    key, "pbt changes values while a run is trained, and only loss.* and optim.* can change then"
                )
        for dimension in self.dimensions:
            if self.spec.search == "grid" and not isinstance(dimension, Choice):
                self._refuse(dimension.keys[0], "a grid needs its values one by one: {choice: [...]}")

    def _read_start_points(self) -> Iterator[dict[str, Any]]:
        """Yield the values of all searched keys of each start point. Raises ConfigError."""
        seen: list[dict[str, Any]] = []
        for number, given in enumerate(self.spec.start or ()):
            places = {
                pattern: f"{self.where}:{self._lines.get(('start', str(number), pattern), 1)}" for pattern in given
            }
            values = {key: get_nested(self.base, *key.split(".")) for key in self.keys}
            chosen: dict[str, str] = {}  # by key, the pattern that names it
            for pattern, value in given.items():
                keys = [key for key in self.keys if _matches(pattern, key)]
                if not keys:
                    near = difflib.get_close_matches(pattern, self.keys, 1)
                    hint = f"; did you mean {near[0]}?" if near else ""
                    raise ConfigError(f"{places[pattern]}: start: {pattern} is not searched{hint}")
                chosen |= dict.fromkeys(keys, pattern)
                values |= dict.fromkeys(keys, value)
            self.config(values, {tuple(key.split(".")): places[pattern] for key, pattern in chosen.items()})
            for dimension in self.dimensions:
                named = [key for key in dimension.keys if key in chosen]
                # A key that was not named has the base configuration's value, which may lie outside as the paper's may.
                if named and dimension.to_params(values) is None:
                    what = ", ".join(f"{key} = {values[key]}" for key in dimension.keys)
                    raise ConfigError(
                        f"{places[chosen[named[0]]]}: start: {what}: is outside the space ({_domain_words(dimension)})"
                    )
            if values in seen:
                raise ConfigError(f"{next(iter(places.values()), self.where)}: start: the same values are given twice")
            seen.append(values)
            yield values

    def _check_metric(self, metric: str, base: Config, key: tuple[str, ...]) -> None:
        where, task = f"{self.where}:{self._lines.get(key, 1)}: {key[0]}", METRICS[metric][1]
        if task not in base.model.tasks:
            has = ", ".join(name for name, (_, other) in METRICS.items() if other in base.model.tasks)
            raise ConfigError(
                f"{where}: {metric} is of {task}, a task the model has not; it has {has or 'no known one'}"
            )
        # Otherwise every trial would be trained and then have no value of this metric.
        if metric.endswith("_hole") and (base.evaluate.hole or base.hole.kind) == "none":
            instead = f"take {metric.removesuffix('_hole')}, or set evaluate.hole"
            raise ConfigError(f"{where}: there are no holes to measure {metric} in; {instead}")

        if metric in ("frechet", "perceptual") and base.evaluate.features is None:
            raise ConfigError(f"{where}: {metric} needs a network to measure it in; set evaluate.features")

    def _refuse(self, key: str, why: str) -> NoReturn:
        raise ConfigError(f"{self._location(key)}: {key}: {why}")

    def _location(self, key: str) -> str:
        """Return file:line of the domain of a key: the last of several."""
        # A key can be named by itself and by a pattern.
        domains = {path[1]: line for path, line in self._lines.items() if path[0] == "space" and len(path) == 2}
        lines = [line for pattern, line in domains.items() if _matches(pattern, key)]
        return f"{self.where}:{lines[-1]}" if lines else self.where


def read_space(source: str, base: Config) -> Space:
    """Read a YAML file, given by path or known name, as the search space around a base configuration.

    Raises ConfigError with file and line.
    """
    text, where = project_files.read_named(source, "search space", project_files.search_spaces())
    tree, lines = strict_yaml.load(text, where)
    known: dict[tuple[str, ...], int | str] = dict(lines)
    return Space(strict_yaml.validate(SpaceSpec, tree, where, known), base, where, known)


def _dimension(key: str, domain: Domain) -> Dimension:
    if domain.choice is not None:
        return Choice(key, domain.choice)
    low, high = domain.uniform or domain.loguniform or domain.integers or (0, 1)
    return Interval(key, low, high, log=domain.loguniform is not None, integer=domain.integers is not None)


def _domain_words(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return "one of " + ", ".join(map(str, dimension.choices))
    if isinstance(dimension, Simplex):
        return f"none below 0, adding up to {dimension.total:g}"
    return f"from {dimension.low:g} to {dimension.high:g}"


def _matches(pattern: str, key: str) -> bool:
    """Whether a key fits a pattern, in which `*` is any one name (not several)."""
    one, other = pattern.split("."), key.split(".")
    return len(one) == len(other) and all(a in (b, "*") for a, b in zip(one, other, strict=True))
