"""One dimension of a search space: how its values are told to a sampler, drawn, and moved a little."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, Any]  # of keys of the configuration
_STEP = 1.2  # factor by which PBT moves a value (Jaderberg 2017)


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`, both included; evenly by their logarithm where `log`."""

    key: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    @property
    def kind(self) -> str:
        return "int" if self.whole else "loguniform" if self.log else "uniform"

    def facts(self) -> dict[str, Any]:
        return {self.key: {"kind": self.kind, "low": self.low, "high": self.high}}

    def ends(self) -> Iterator[Values]:
        yield from ({self.key: end} for end in (self.low, self.high))

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return {self.key: IntDistribution(int(self.low), int(self.high))}
        return {self.key: FloatDistribution(self.low, self.high, log=self.log)}

    def values(self, params: Mapping[str, Any]) -> Values:
        return {self.key: params[self.key]}

    def params(self, values: Values) -> dict[str, Any] | None:
        """What a sampler would have had to draw; None for values that are outside."""
        value = values[self.key]
        if not self.low <= value <= self.high or (self.whole and value != int(value)):
            return None
        return {self.key: int(value) if self.whole else value}

    def plainly(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]]:
        """The values themselves, the nearest inside, with what they are distributed like."""
        inside = min(self.high, max(self.low, values[self.key]))
        return {self.key: round(inside) if self.whole else inside}, self.distributions()

    def moved(self, values: Values, rng: np.random.Generator) -> Values:
        """A step up or down: by a factor, or on a linear scale by as much of the range; inside it."""
        value, up = values[self.key], bool(rng.integers(2))
        if self.log:
            value = value * _STEP if up else value / _STEP
        else:
            step = (_STEP - 1) / 2 * (self.high - self.low)
            value = round(value) if self.whole else value
            value += (max(1, round(step)) if self.whole else step) * (1 if up else -1)
        return {self.key: type(values[self.key])(min(self.high, max(self.low, value)))}


@dataclass(frozen=True)
class Choice:
    """One of some values, which may be anything that a configuration has."""

    key: str
    choices: tuple[Any, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)

    def facts(self) -> dict[str, Any]:
        return {self.key: {"kind": "choice", "values": list(self.choices)}}

    def ends(self) -> Iterator[Values]:
        yield from ({self.key: value} for value in self.choices)

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        return {self.key: CategoricalDistribution(tuple(map(json.dumps, self.choices)))}

    def values(self, params: Mapping[str, Any]) -> Values:
        return {self.key: json.loads(params[self.key])}

    def params(self, values: Values) -> dict[str, Any] | None:
        place = self._place(values)  # its own way of writing: a configuration has 100.0 where 100 is the choice
        return None if place is None else {self.key: json.dumps(self.choices[place])}

    def plainly(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]]:
        return {self.key: json.dumps(self.choices[self._place(values) or 0])}, self.distributions()

    def moved(self, values: Values, rng: np.random.Generator) -> Values:
        """A neighbour in the order in which the values are given."""
        place = (self._place(values) or 0) + (1 if rng.integers(2) else -1)
        return {self.key: self.choices[min(len(self.choices) - 1, max(0, place))]}

    def _place(self, values: Values) -> int | None:
        return self.choices.index(values[self.key]) if values[self.key] in self.choices else None


@dataclass(frozen=True)
class Simplex:
    """Values of several keys, none below 0, that add up to `total`; evenly spread over all such.

    A sampler draws one number of [0, 1] less than there are keys: number i says which share of what is left key i takes,
    by the inverse of its distribution (a stick that is broken).
    """

    keys: tuple[str, ...]
    total: float

    def facts(self) -> dict[str, Any]:
        return {key: {"kind": "simplex", "total": self.total} for key in self.keys}

    def ends(self) -> Iterator[Values]:
        yield from ({key: self.total if key == one else 0.0 for key in self.keys} for one in self.keys)

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution

        return {f"{key}#": FloatDistribution(0.0, 1.0) for key in self.keys[:-1]}

    def values(self, params: Mapping[str, Any]) -> Values:
        left, values = self.total, {}
        for number, key in enumerate(self.keys[:-1]):
            after = len(self.keys) - 1 - number
            values[key] = left * -math.expm1(math.log1p(-params[f"{key}#"]) / after) if params[f"{key}#"] < 1 else left
            left -= values[key]
        return {**values, self.keys[-1]: max(0.0, left)}

    def params(self, values: Values) -> dict[str, Any] | None:
        shares = [values[key] for key in self.keys]
        if min(shares) < 0 or not math.isclose(sum(shares), self.total, rel_tol=1e-6):
            return None
        left, params = self.total, {}
        for number, key in enumerate(self.keys[:-1]):
            after = len(self.keys) - 1 - number
            share = min(1.0, values[key] / left) if left > 0 else 0.0
            params[f"{key}#"] = 1 - (1 - share) ** after
            left -= values[key]
        return params

    def plainly(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]]:
        from optuna.distributions import FloatDistribution

        inside = {key: min(self.total, max(0.0, values[key])) for key in self.keys}
        return inside, {key: FloatDistribution(0.0, self.total) for key in self.keys}

    def moved(self, values: Values, rng: np.random.Generator) -> Values:
        """Every value by a factor of its own, not all by the same, then to the same total."""
        up = rng.integers(2, size=len(self.keys))
        if up.min() == up.max():  # would be undone by the total
            up[rng.integers(len(self.keys))] ^= 1
        moved = [values[key] * _STEP ** (1 if one else -1) for key, one in zip(self.keys, up, strict=True)]
        whole = sum(moved)
        return (
            {key: self.total * value / whole for key, value in zip(self.keys, moved, strict=True)}
            if whole
            else dict(values)
        )


Dimension = Interval | Choice | Simplex
