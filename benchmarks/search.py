"""How well a sweep chooses: repeats over seeds, and early stopping by several metrics. Simulated; nothing is trained.

The real schedulers decide over results that are drawn: configurations of standard normal quality, seen with noise of the given size
for each seed (`repeats`), and configurations with two qualities that contradict each other (`front`). See tests/sweep/simulation.py.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from benchmarks import save
from tests.sweep.simulation import chosen, front_kept

SWEEPS = 300


def main() -> None:
    repeats = {
        f"sync_halving, noise {noise:g}, {trials} configurations x {seeds} seeds": choice(trials, seeds, noise)
        for noise in (0.25, 0.5, 1.0)
        for trials, seeds in ((16, 1), (16, 3), (48, 1))
    }
    front = {
        f"{scheduler}, noise {noise:g}, by {len(metric)} metric(s)": round(
            fmean(front_kept(scheduler, 27, metric, noise, seed) for seed in range(SWEEPS)), 3
        )
        for scheduler in ("asha", "sync_halving")
        for noise in (0.0, 0.05)
        for metric in (("psnr",), ("psnr", "landmark_error"))
    }
    save(
        __file__, {"sweeps of each": SWEEPS, "repeats": repeats, "share of the Pareto front trained to the end": front}
    )


def choice(trials: int, seeds: int, noise: float) -> dict[str, Any]:
    """Return how often a sweep chooses the truly best configuration, and the true quality of what it chooses, on average."""
    found = [chosen("sync_halving", trials, seeds, noise, seed) for seed in range(SWEEPS)]
    best = sum(place == 0 for place, _ in found) / SWEEPS
    return {"the best is chosen": round(best, 3), "quality of the chosen": round(fmean(one for _, one in found), 3)}


if __name__ == "__main__":
    main()
