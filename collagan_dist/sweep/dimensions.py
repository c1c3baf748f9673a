"""The dimensions of a search space: an interval, a choice, or a simplex over several keys.

A sampler draws *parameters* (Optuna's word); a configuration gets *values*. For a simplex the two differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Values = dict[str, Any]  # by keys of the configuration
_PERTURB_FACTOR = 1.2  # by which PBT's explore step multiplies or divides a value (Jaderberg 2017)


@dataclass(frozen=True)
class _OneKey:
    """A dimension of a single key."""

    key: str

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,)


@dataclass(frozen=True)
class Interval(_OneKey):
    """Numbers from `low` to `high`, both included; uniform in their logarithm where `log`, integers where `integer`."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what sweep.json says of each key."""
        kind = "int" if self.integer else "loguniform" if self.log else "uniform"
        return {self.key: {"kind": kind, "low": self.low, "high": self.high}}

    def corners(self) -> Iterator[Values]:
        """Yield the extreme values, with which the configuration is validated."""
        yield from ({self.key: end} for end in (self.low, self.high))

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return {self.key: IntDistribution(int(self.low), int(self.high))}
        return {self.key: FloatDistribution(self.low, self.high, log=self.log)}

    def from_params(self, params: Mapping[str, Any]) -> Values:
        return {self.key: params[self.key]}

    def to_params(self, values: Values) -> dict[str, Any] | None:
        """Return the parameters that give these values, None for values outside."""
        value = values[self.key]
        if not self.low <= value <= self.high or (self.integer and value != int(value)):
            return None
        # A configuration may hold 100.0 where the space says 100, which IntDistribution would refuse.
        return {self.key: int(value) if self.integer else value}

    def clamped(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]]:
        """Return the nearest values inside and their distributions."""
        inside = min(self.high, max(self.low, values[self.key]))
        return {self.key: round(inside) if self.integer else inside}, self.distributions()

    def perturbed(self, values: Values, rng: np.random.Generator) -> Values:
        """Return the value a step up or down, clamped to the interval."""
        value, up = values[self.key], bool(rng.integers(2))
        if self.log:
            value = value * _PERTURB_FACTOR if up else value / _PERTURB_FACTOR
        else:
            # A factor would hardly move a value near 0 of a linear range, so the step is a tenth of the range there.
            step = (_PERTURB_FACTOR - 1) / 2 * (self.high - self.low)
            value = round(value) if self.integer else value
            value += (max(1, round(step)) if self.integer else step) * (1 if up else -1)
        return {self.key: min(self.high, max(self.low, value))}


@dataclass(frozen=True)
class Choice(_OneKey):
    """One of some values, of any type that a configuration has."""

    choices: tuple[Any, ...]

    def describe(self) -> dict[str, Any]:
        return {self.key: {"kind": "choice", "values": list(self.choices)}}

    def corners(self) -> Iterator[Values]:
        yield from ({self.key: value} for value in self.choices)

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        # As JSON: Optuna asks for categories that are None, bool, int, float or str, and a choice can be a list.
        return {self.key: CategoricalDistribution(tuple(map(json.dumps, self.choices)))}

    def from_params(self, params: Mapping[str, Any]) -> Values:
        return {self.key: json.loads(params[self.key])}

    def to_params(self, values: Values) -> dict[str, Any] | None:
        index = self._index(values)
        # The choice as it was given, not the value: a configuration holds 100.0 where 100 is the choice.
        return None if index is None else {self.key: json.dumps(self.choices[index])}

    def clamped(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]] | None:
        """Return the choice and its distribution; None for a value outside, to which no choice is nearest."""
        params = self.to_params(values)
        return None if params is None else (params, self.distributions())

    def perturbed(self, values: Values, rng: np.random.Generator) -> Values:
        """Return a neighbour in the order in which the choices are given."""
        index = (self._index(values) or 0) + (1 if rng.integers(2) else -1)
        return {self.key: self.choices[min(len(self.choices) - 1, max(0, index))]}

    def _index(self, values: Values) -> int | None:
        return self.choices.index(values[self.key]) if values[self.key] in self.choices else None


@dataclass(frozen=True)
class Simplex:
    """Non-negative values of several keys that add up to `total`, uniform over all such (Dirichlet(1, ..., 1)).

    A sampler draws one parameter in [0, 1] less than there are keys, by stick breaking. Parameter i is a quantile: that of the
    share which key i takes of what the keys before it have left.
    """

    keys: tuple[str, ...]
    total: float

    def describe(self) -> dict[str, Any]:
        return {key: {"kind": "simplex", "total": self.total} for key in self.keys}

    def corners(self) -> Iterator[Values]:
        yield from ({key: self.total if key == one else 0.0 for key in self.keys} for one in self.keys)

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution

        return {f"{key}#": FloatDistribution(0.0, 1.0) for key in self.keys[:-1]}

    def from_params(self, params: Mapping[str, Any]) -> Values:
        left, values = self.total, {}
        for number, key in enumerate(self.keys[:-1]):
            quantile, after = params[f"{key}#"], len(self.keys) - 1 - number
            # The share is Beta(1, after); its inverse distribution function is 1 - (1 - q)^(1 / after), here without cancellation.
            values[key] = left * -math.expm1(math.log1p(-quantile) / after) if quantile < 1 else left
            left -= values[key]
        return {**values, self.keys[-1]: max(0.0, left)}

    def to_params(self, values: Values) -> dict[str, Any] | None:
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

    def clamped(self, values: Values) -> tuple[Values, dict[str, BaseDistribution]]:
        from optuna.distributions import FloatDistribution

        inside = {key: min(self.total, max(0.0, values[key])) for key in self.keys}
        return inside, {key: FloatDistribution(0.0, self.total) for key in self.keys}

    def perturbed(self, values: Values, rng: np.random.Generator) -> Values:
        """Return every value moved by a factor of its own, then scaled to the same total."""
        up = rng.integers(2, size=len(self.keys))
        if up.min() == up.max():
            # The same factor for all would be undone by the scaling.
            up[rng.integers(len(self.keys))] ^= 1
        moved = [values[key] * _PERTURB_FACTOR ** (1 if one else -1) for key, one in zip(self.keys, up, strict=True)]
        total = sum(moved)
        if not total:
            return dict(values)  # all are 0, which no factor moves
        return {key: self.total * value / total for key, value in zip(self.keys, moved, strict=True)}


Dimension = Interval | Choice | Simplex
