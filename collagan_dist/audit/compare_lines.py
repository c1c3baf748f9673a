"""Compares train and eval lines of metrics.jsonl with those of the same stretch trained again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from collagan_dist.audit.record import LoggedPart, Row, Stretch
from collagan_dist.config.load import leaves
from collagan_dist.runs.thinning import is_number

# They say when and how fast, not how well.
_TIMES = ("kind", "step", "images_per_s", "data_wait_share", "checkpoint_wait_share")
# Shares of few patches jump when one logit crosses zero, landmarks when another pixel of a heatmap becomes the largest.
_JUMPING = ("accuracy/", "landmark_error", "se.landmark_error")
# A value may differ by so many times the largest difference that roundings make of it in a line of any twin, or by this share of it,
# as an evaluation counts pixels of 8 bits, and a rounding may turn a step of Adam (compare_tensors.py).
_FACTOR, _LEAST = 5.0, {"train": 0.02, "eval": 0.005}

Noise = Mapping[tuple[str, str], float]  # the largest difference that roundings make, by kind of line and key


@dataclass(frozen=True)
class LineComparison:
    """How many lines were compared, those that were not with the reason, and "step N: key: then -> now" of all that differ."""

    compared: int
    left_out: tuple[str, ...]
    differing: tuple[str, ...]


@dataclass(frozen=True)
class Expected:
    """Which lines a log must have: those of a training of `stretch`; of its last step those of the kinds `at_end`.

    That step is always logged here, whatever the run's starts did. Without `evaluations` eval lines are left out.
    """

    stretch: Stretch
    evaluations: bool = True
    at_end: frozenset[str] = frozenset()


def compare_lines(
    logged: LoggedPart, found: Sequence[Row], expected: Expected, noise: Noise | None, exact: Sequence[str] = ()
) -> LineComparison:
    """Compare the recorded lines with the ones of a training of the stretch; exactly where `noise` is None, or the kind is one of `exact`."""
    stretch, evaluations = expected.stretch, expected.evaluations
    recorded, computed = _by_place(logged.rows), _by_place(found)
    left_out: list[str] = []
    wrong: list[str] = []
    compared = 0
    for place, row in recorded.items():
        step, kind = place[:2]
        if kind == "eval" and not evaluations:
            left_out.append(f"evaluation of step {step}: running statistics are of other samples")
        elif place not in computed and logged.inside(stretch):  # which may have had other keys, and its own end
            left_out.append(f"{kind} line of step {step}: the configuration of the end has none there")
        elif place not in computed:
            wrong.append(f"step {step}: {kind} line, where the configuration has none")
        elif kind == "train" and _window(logged.rows, logged.begins, step) != _window(found, [stretch.start], step):
            left_out.append(f"train line of step {step}: its means begin at another step than here")
        else:
            compared += 1
            wrong += [
                f"step {step}: {text}" for text in _differences(row, computed[place], None if kind in exact else noise)
            ]
    if not logged.covers(stretch):
        left_out.append(f"metrics.jsonl has no start up to step {stretch.start}: lines may be missing")
    elif not logged.inside(stretch):
        wrong += [
            f"step {step}: metrics.jsonl has no {kind} line"
            for step, kind, *_ in (place for place in computed if place not in recorded)
            if (evaluations or kind == "train") and (step != stretch.end or kind in expected.at_end)
        ]
    return LineComparison(compared, tuple(left_out), tuple(wrong))


def noise_of(plain: Sequence[Row], nudged: Sequence[Row], known: Noise) -> Noise:
    """Return the largest difference of each value between two trainings of a stretch that differ by roundings, or the `known` one."""
    found = dict(known)
    others = _by_place(nudged)
    for place, row in _by_place(plain).items():
        other = _values(others.get(place, {}))
        for key, value in _values(row).items():
            if key in other:
                found[place[1], key] = max(found.get((place[1], key), 0.0), abs(value - other[key]))
    return found


def _by_place(rows: Iterable[Row]) -> dict[tuple, Row]:
    return {(row["step"], row["kind"], row.get("split"), row.get("hole")): row for row in rows}


def _window(rows: Iterable[Row], starts: Sequence[int], step: int) -> int:
    """Return the step after which a train line's means begin: that of the line before it, or of a start since then."""
    before = [row["step"] for row in rows if row["kind"] == "train" and row["step"] < step]
    return max([0, *before, *(one for one in starts if one < step)])


def _differences(row: Row, other: Row, noise: Noise | None) -> list[str]:
    then, now = _values(row), _values(other)

    def alike(key: str) -> bool:
        if noise is None or key not in then or key not in now:
            # Roundings may decide whether a class has any pixel, and so a value; the mean always has one.
            may_lack = noise is not None and key.startswith(("dice", "se.dice")) and not key.endswith(".mean")
            return then.get(key) == now.get(key) or may_lack
        allowed = _FACTOR * noise.get((row["kind"], key), 0.0) + _LEAST[row["kind"]] * abs(then[key])
        return key.startswith(_JUMPING) or abs(then[key] - now[key]) <= allowed

    return [f"{key}: {then.get(key)} -> {now.get(key)}" for key in sorted({*then, *now}) if not alike(key)]


def _values(row: Row) -> dict[str, float]:
    return {key: value for key, value in leaves(row).items() if key not in _TIMES and is_number(value)}
