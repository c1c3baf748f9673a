import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import kstest

from collagan_dist.sweep import search
from collagan_dist.sweep.search import Observation
from collagan_dist.sweep.space import Space
from tests.conftest import ROOT
from tests.sweep.spaces import space

REC = "loss.weights.inpainting.rec"
MIXED = """
space:
  loss.weights.*.adv: {simplex: 1}
  loss.weights.inpainting.rec: {loguniform: [1, 1000]}
  model.noise: {uniform: [0, 0.9]}
  schedule.batch: {integers: [8, 64]}
  loss.adv: {choice: [ns, minmax, printed]}
"""
HEADS = {
    "random": "metric: psnr", "tpe": "metric: psnr\nsearch: tpe", "nsga2": "metric: [psnr, landmark_error]\nsearch: nsga2"
}  # fmt: skip


def mixed(kind: str) -> Space:
    return space(HEADS[kind] + MIXED)


def stored(one: Observation) -> Observation:
    saved = json.loads(json.dumps(asdict(one)))
    return Observation(**{**saved, "metrics": None if saved["metrics"] is None else tuple(saved["metrics"])})


def searched(where: Space, seed: int, count: int, metrics: Callable[[dict], tuple[float, ...]]) -> list[Observation]:
    """A complete search, one trial after the other, each asked anew."""
    observations: list[Observation] = []
    for number in range(count):
        values, notes = search.propose(where, seed, number, count, observations)
        observations.append(stored(Observation(values, notes, metrics(values))))
    return observations


def good(values: dict) -> tuple[float, ...]:
    return (-((math.log10(values[REC]) - 2) ** 2) - values["model.noise"], values["loss.weights.landmarks.adv"])


def some(kind: str, count: int = 24) -> tuple[Space, list[Observation]]:
    where = mixed(kind)
    return where, searched(where, 7, count, lambda values: good(values)[: len(where.metrics)])


@pytest.mark.parametrize("kind", HEADS)
def test_proposals_are_valid_and_differ_by_number_and_seed(kind):
    where, observations = some(kind)
    for one in observations:
        assert tuple(one.values) == where.keys and stored(one) == one
        assert all(dimension.to_params(one.values) is not None for dimension in where.dimensions)
        assert where.config(one.values).schedule.batch == one.values["schedule.batch"]
    keys = ((7, 24), (7, 25), (7, 23), (8, 24), (24, 7))
    assert len({json.dumps(search.propose(where, *key, 40, observations)[0]) for key in keys}) == 5


def test_proposals_repeat_in_another_process():
    answers = {kind: search.propose(*asked(kind)) for kind in HEADS}
    code = """
import json
from collagan_dist.sweep import search
from tests.sweep.test_search import HEADS, asked
print(json.dumps({kind: search.propose(*asked(kind)) for kind in reversed(HEADS)}))"""
    env = {**os.environ, "PYTHONHASHSEED": "99"}
    elsewhere = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env)
    assert json.loads(elsewhere) == json.loads(json.dumps(answers))


def asked(kind: str) -> tuple[Space, int, int, int, list[Observation]]:
    where, observations = some(kind)
    return where, 7, 24, 40, observations


def test_random_search_is_uniform():
    where = mixed("random")
    drawn = [search.propose(where, 1, number, 900, ())[0] for number in range(900)]
    assert kstest([math.log10(values[REC]) / 3 for values in drawn], "uniform").pvalue > 1e-3
    assert kstest([values["model.noise"] / 0.9 for values in drawn], "uniform").pvalue > 1e-3
    wholes = [values["schedule.batch"] for values in drawn]
    assert set(wholes) == set(range(8, 65)) and abs(np.mean(wholes) - 36) < 2
    counts = np.unique([values["loss.adv"] for values in drawn], return_counts=True)[1]
    assert len(counts) == 3 and counts.min() > 240


def test_no_values_are_tried_twice():
    """A run of the same values would be the same run. Few choices are all tried before one comes again; then it does come."""
    for kind in ("random", "tpe"):
        keys = "{loss.adv: {choice: [ns, minmax]}, model.patch: {choice: [94, 70]}}"
        where = space(f"metric: psnr\nsearch: {kind}\nspace: {keys}")
        found = searched(where, 3, 6, lambda values: (float(values["model.patch"]),))
        tried = [json.dumps(one.values) for one in found]
        assert len(set(tried[:4])) == len(set(tried)) == 4
    where = space(f"{HEADS['nsga2']}\nspace: {{loss.weights.inpainting.*: {{uniform: [0, 1]}}}}")
    for seed in range(3):
        observations = searched(where, seed, 40, lambda values: (values[REC], values["loss.weights.inpainting.adv"]))
        assert len({json.dumps(one.values) for one in observations}) == 40


def test_tpe_learns():
    """A plain bowl in four keys: with the same 40 trials it comes much closer than chance."""
    text = "space: {loss.weights.*.rec: {loguniform: [1, 1000]}, model.noise: {uniform: [0, 0.9]}}"

    def bowl(values: dict) -> tuple[float, ...]:
        best = {"inpainting": 2, "segmentation": 1, "landmarks": 2.5}
        far = sum((math.log10(values[f"loss.weights.{task}.rec"]) - power) ** 2 for task, power in best.items())
        return (-far - 4 * (values["model.noise"] - 0.3) ** 2,)

    def misses(kind: str) -> list[float]:
        where = space(f"metric: psnr\nsearch: {kind}\n{text}")
        return [-max(one.metrics or (-99,) for one in searched(where, seed, 40, bowl))[0] for seed in range(8)]

    assert np.median(misses("tpe")) < 0.5 * np.median(misses("random"))


def test_tpe_seeks_the_smallest_error():
    where = space("metric: landmark_error\nsearch: tpe\nspace: {model.noise: {uniform: [0, 0.9]}}")
    observations = [Observation({"model.noise": 0.03 * n}, {}, (0.03 * n,)) for n in range(30)]
    asked = [search.propose(where, 0, number, 60, observations)[0]["model.noise"] for number in range(30)]
    assert np.mean(asked) < 0.2


def test_nsga2_evolves():
    """Two metrics that contradict each other, reached together only near the edge of three other keys."""
    text = "space: {loss.weights.*.rec: {uniform: [0, 1]}, loss.weights.*.adv: {uniform: [0, 1]}}"

    def torn(values: dict) -> tuple[float, float]:
        first, *others = values.values()
        far = 1 + 9 * sum(others) / len(others)
        return -first, far * (1 - math.sqrt(first / far))  # ZDT1

    def volume(observations: list[Observation]) -> float:
        """Between the front and (-1, 8)."""
        area, height = 0.0, 8.0
        for first, second in sorted((one.metrics for one in observations if one.metrics), reverse=True):
            if second < height:
                area, height = area + (1 + first) * (height - second), second
        return area

    where = space(f"metric: [psnr, landmark_error]\nsearch: nsga2\n{text}")
    chance = space(f"metric: psnr\n{text}")
    mine, others = [], []
    for seed in range(2):
        observations = searched(where, seed, 100, torn)
        mine.append(volume(observations))
        others.append(volume(searched(chance, seed, 100, torn)))
        generations = [one.notes["NSGAIISampler:generation"] for one in observations]
        assert generations == sorted(generations) and generations[-1] == 3  # four times 25
    assert min(mine) > max(others)
    # Its notes are all that it remembers: without them every trial would be of the first generation.
    forgotten = [replace(one, notes={}) for one in observations]
    assert search.propose(where, 0, 100, 100, forgotten)[1] == {"NSGAIISampler:generation": 0}


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_trials_without_metrics_change_no_proposal(kind):
    """Failed, with values that the space does not have, or (nsga2) still running: the answer is the same as without them."""
    where, observations = some(kind)
    asked = search.propose(where, 7, 24, 40, observations)[0]
    inside = observations[3].values
    count = len(where.metrics)
    beside = [
        Observation({**inside, REC: 1e6}, {}, (99.0,) * count), Observation({**inside, "loss.adv": "wgan"}, {}, (99.0,) * count),
        Observation({**inside, "schedule.batch": 8.5}, {}, (99.0,) * count),
        Observation({**inside, **dict.fromkeys(where.keys[:3], 0.8)}, {}, (99.0,) * count),
        Observation({**inside, "model.noise": 0.1}, observations[3].notes, (99.0,) * count, failed=True),
        Observation(inside, observations[3].notes, None, failed=True),
        *([Observation(inside, observations[3].notes, None)] if kind == "nsga2" else []),
    ]  # fmt: skip
    for one in beside:
        assert search.propose(where, 7, 24, 40, [*observations, one])[0] == asked, one
    assert search.propose(where, 7, 24, 40, [*beside, *observations])[0] == asked
    assert search.propose(where, 7, 24, 40, beside)[0].keys() == asked.keys()  # nothing is known


def test_tpe_avoids_values_of_running_and_stopped_trials():
    where = space("metric: psnr\nsearch: tpe\nspace: {model.noise: {uniform: [0, 0.9]}}")
    observations = [Observation({"model.noise": x}, {}, (-abs(x - 0.2),)) for x in np.linspace(0, 0.9, 28).tolist()]
    beside = [Observation({"model.noise": x}, {}, None) for x in np.linspace(0.1, 0.3, 30).tolist()]

    def near(observations: list[Observation]) -> float:
        asked = [search.propose(where, 0, n, 90, observations)[0]["model.noise"] for n in range(20)]
        return float(np.mean([0.1 < value < 0.3 for value in asked]))

    assert near(observations) > 0.8 and near(observations + beside) < 0.3


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_the_search_avoids_what_breaks_constraints(kind):
    """The metric is best where the constraint is broken: told of it, the search asks for values that keep it."""
    head = "metric: psnr\nsearch: tpe" if kind == "tpe" else HEADS["nsga2"]
    where = space(
        f"{head}\nspace: {{model.noise: {{uniform: [0, 0.9]}}, loss.weights.inpainting.rec: {{uniform: [0, 1]}}}}"
    )

    def told(constrained: bool) -> float:
        observations: list[Observation] = []
        for number in range(40):
            values, notes = search.propose(where, 3, number, 40, observations)
            high = values["model.noise"]
            beyond = {"dice above 0.3": high - 0.3} if constrained else {}
            metrics = (high, values[REC])[: len(where.metrics)]
            observations.append(stored(Observation(values, notes, metrics, constraints=beyond)))
        return float(np.mean([one.values["model.noise"] > 0.3 for one in observations[15:]]))

    assert told(True) < (0.5 if kind == "tpe" else 0.7) * told(False)


def test_tpe_with_two_metrics_seeks_the_front():
    """The front of two metrics is where model.noise is least; psnr and the error pull the other key to either end."""
    text = "space: {model.noise: {uniform: [0, 0.9]}, loss.weights.inpainting.rec: {uniform: [0, 1]}}"
    where = space(f"metric: [psnr, landmark_error]\nsearch: tpe\n{text}")
    observations = searched(where, 0, 50, lambda v: (v[REC] - v["model.noise"], v[REC] ** 2 + v["model.noise"]))
    late = [one.values for one in observations[25:]]
    assert np.mean([values["model.noise"] for values in late]) < 0.25
    assert min(values[REC] for values in late) < 0.25 and max(values[REC] for values in late) > 0.6


@pytest.mark.parametrize("kind", ["random", "nsga2"])
@pytest.mark.parametrize("key", [REC, "model.noise", "loss.weights.landmarks.adv", "schedule.batch", "loss.adv"])
def test_the_key_that_matters_is_the_most_important(key, kind):
    """By every metric; also where some failed, and where the paper's values lie outside."""
    where = mixed(kind)

    def metric(values: dict) -> float:
        forms = {"ns": 0.0, "minmax": 1.0, "printed": 3.0}
        return forms[values[key]] if key == "loss.adv" else math.log(values[key] + 1e-9)

    drawn = [search.propose(mixed("random"), 2, number, 60, ())[0] for number in range(60)]
    observations = [Observation(values, {}, tuple(metric(values) for _ in where.metrics)) for values in drawn]
    failed, outside = Observation(drawn[0], {}, None, failed=True), {**drawn[0], REC: 1e5}
    observations += [failed, Observation(outside, {}, observations[0].metrics)]
    found = search.importance(where, observations)
    assert set(found) == set(where.metrics)
    for shares in found.values():
        assert set(shares) == set(where.keys) and sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0
        assert max(shares, key=lambda one: shares[one]) == key and shares[key] > 0.4, shares


def test_importance_leaves_out_what_is_none_of_a_choice():
    """As the paper's value may be; it would count as the first choice."""
    where, observations = some("random", 30)
    outside = [replace(one, values={**one.values, "loss.adv": "other"}, metrics=(1e3,)) for one in observations[:5]]
    assert search.importance(where, [*observations, *outside]) == search.importance(where, observations) != {}


def test_importance_needs_enough_results():
    where, observations = some("random", 8)
    assert search.importance(where, []) == search.importance(where, [replace(observations[0], metrics=None)]) == {}
