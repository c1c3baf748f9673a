"""Whole sweeps without training: trials with made-up curves, slots, failures and kills at any moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from collagan_dist.sweep.record import Trial
from collagan_dist.sweep.schedule import Leg, Plan, exchanges, next_leg, unconfirmed
from tests.sweep.test_space import space

TOTAL, BATCH = 90, 2
Curve = Callable[[int, int], float]  # (number, samples) -> metric


def make_plan(
    folder: Path, scheduler: str, trials: int, rungs: tuple[int, ...] = (10, 30, TOTAL), confirm: int = 0, **tree: Any
) -> Plan:
    return Plan(space(folder, {"scheduler": scheduler, **tree}), trials, TOTAL, rungs, 0, confirm)


class Simulation:
    """Does what the driver does, with legs that end in a random order. `legs` tells (number, from, to) of each that was ended."""

    def __init__(
        self, plan: Plan, curve: Curve, slots: int = 1, seed: int = 0, failing: float = 0.0, killed: float = 0.0
    ) -> None:
        self.plan, self.curve, self.slots, self.failing, self.killed = plan, curve, slots, failing, killed
        self.random = random.Random(seed)
        self.trials: list[Trial] = []
        self.legs: list[tuple[int, int, int]] = []
        self.traded: list[tuple[int, int, int]] = []  # (loser, winner, at)

    def run(self) -> Simulation:
        running: list[Leg] = []
        for _ in range(10_000):
            leg: Any = None
            if len(running) < self.slots:
                leg = self._next()
                if isinstance(leg, Leg):
                    self._begin(leg)
                    running.append(leg)
                    continue
            if not running:
                assert leg == "done", leg
                return self
            if self.random.random() < self.killed:  # what ran is lost, what was ended stays
                self.trials = [replace(trial, running=False) for trial in self.trials]
                running = []
            else:
                self._end(running.pop(self.random.randrange(len(running))))
        raise AssertionError("it never ends")

    def _next(self) -> Any:
        for one in exchanges(self.plan, self.trials):
            if self.random.random() < self.killed:
                return self._next()  # killed between two of them
            trial = self.trials[one.number]
            entry = {"at": one.at, "from": one.donor, "values": trial.values}
            assert trial.until <= one.at >= self.trials[one.donor].until  # neither has been sent on from there
            self.traded.append((one.number, one.donor, one.at))
            self.trials[one.number] = replace(trial, values=one.values, lineage=(*trial.lineage, entry))
        return next_leg(self.plan, self.trials)

    def _begin(self, leg: Leg) -> None:
        if leg.number == len(self.trials):
            searched = sum(trial.role != "confirm" for trial in self.trials)
            role, values, seed = "search" if searched else "paper", {"loss.weights.inpainting.rec": 30.0 + searched}, 0
            if searched == self.plan.trials:
                role, (values, seed) = "confirm", unconfirmed(self.plan, self.trials)[0]
            self.trials.append(Trial(leg.number, role, values, seed, BATCH))
        trial = self.trials[leg.number]
        assert (
            not trial.running and trial.failure is None and leg.samples > trial.reached and leg.samples >= trial.until
        )
        self.trials[leg.number] = replace(trial, until=leg.samples, running=True)

    def _end(self, leg: Leg) -> None:
        trial = self.trials[leg.number]
        if self.random.random() < self.failing:
            self.trials[leg.number] = replace(trial, running=False, failure=(6, "NaN"))
            return
        self.legs.append((leg.number, trial.reached, leg.samples))
        results = {
            **trial.results,
            leg.samples: {
                "psnr_hole": self.curve(leg.number, leg.samples),
                "landmark_error": self.curve(leg.number, leg.samples),
            },
        }
        self.trials[leg.number] = replace(trial, running=False, results=results)
