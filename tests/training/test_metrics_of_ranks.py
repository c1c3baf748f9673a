import json
import shutil

import pytest

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.inference.score import score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.data.packed import damage_sample
from tests.training.small import small


def test_metrics_do_not_depend_on_the_number_of_ranks(shards, tmp_path, capsys):
    """5 test samples, one of them damaged, on 1 rank and on 2: the same metrics.json."""
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))
    key = damage_sample(copy, "test", 3)  # which rank 1 reads
    settings = {"schedule__steps": 2, "evaluate__samples": 5, "evaluate__baselines": 3}
    train(small(copy.folder, **settings), tmp_path / "run", World())
    score(tmp_path / "run", World())
    alone = json.loads((tmp_path / "run/metrics.json").read_text())
    assert (alone["samples"], alone["damaged"], alone["baselines_subset"]["samples"]) == (4, 1, 3)
    ranks = collagan("evaluate", tmp_path / "run", ranks=2)
    for said in (capsys.readouterr().err, ranks.stderr):
        assert said.count(f"sample {key} does not decode; it was left out") == 1
    found = _flat(json.loads((tmp_path / "run/metrics.json").read_text()))
    assert found == pytest.approx(_flat(alone), rel=1e-4, nan_ok=True)


def test_distances_in_features_do_not_depend_on_the_number_of_ranks(shards, tmp_path):
    run, count = tmp_path / "run", {"evaluate__samples": 5, "evaluate__baselines": 3}
    train(small(shards.folder, schedule__steps=2, **count), run, World())
    features = f"evaluate.features={run}"  # it segments
    ((alone, path),) = score(run, World(), sets=(features,))
    path.unlink()
    collagan("evaluate", run, "--set", features, ranks=2)
    found = json.loads(path.read_text())
    assert {"perceptual", "frechet"} <= found.keys() and {"perceptual", "frechet"} <= found["baselines"][
        "biharmonic"
    ].keys()
    assert _flat(found) == pytest.approx(_flat(alone), rel=1e-4, nan_ok=True)


def _flat(tree: dict, path: str = "") -> dict[str, float]:
    """Numbers by their keys, but for what says how many ranks there were."""
    leaves = {}
    for key, value in (tree | {"machine": None}).items():
        leaves |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return {k: v for k, v in leaves.items() if isinstance(v, (int, float))}
