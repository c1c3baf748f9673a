"""Metrics do not depend on the number of ranks."""

import json

import pytest

from collagan_dist.inference.score import score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.training.small import small


def test_metrics_do_not_depend_on_the_number_of_ranks(shards, tmp_path):
    """6 test samples on 1 rank and on 4 (two of which get one sample fewer): the same metrics.json."""
    train(small(shards.folder, schedule__steps=2, evaluate__baselines=3), tmp_path / "run", World())
    score(tmp_path / "run", World())
    found = [json.loads((tmp_path / "run/metrics.json").read_text())]
    collagan("evaluate", tmp_path / "run", ranks=4)
    found.append(json.loads((tmp_path / "run/metrics.json").read_text()))
    assert found[0]["samples"] == 6 and found[0]["baselines_subset"]["samples"] == 3
    flat = [_flat(f) for f in found]
    assert flat[0].keys() == flat[1].keys()
    for key, value in flat[0].items():
        assert flat[1][key] == pytest.approx(value, rel=1e-4), key


def _flat(tree: dict, path: str = "") -> dict[str, float]:
    leaves = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return {k: v for k, v in leaves.items() if isinstance(v, (int, float))}
