import json
from pathlib import Path

import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.estimate import estimate
from collagan_dist.reproduce.plan import ReproduceOptions
from tests.reproduce.small import write_small

MODELS = ("M_d", "M_id", "M*_isd")


@pytest.fixture
def options(shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ReproduceOptions:
    """Table 3 of three models: 3 steps of 4 samples each, a checkpoint every step of which two are kept."""
    monkeypatch.setitem(paper.paper()["table3"], "rows", {model: [] for model in MODELS})
    monkeypatch.setitem(paper.paper(), "controls", [])
    config = str(write_small(tmp_path))
    return ReproduceOptions(config, str(shards.folder), tmp_path / "out", (3,), (), scale=0.01, seeds=2, ranks=1)


def write_log(run: Path, rates: list[float], checkpoint_bytes: int) -> None:
    run.mkdir(parents=True)
    lines = [json.dumps({"kind": "train", "step": n, "images_per_s": rate}) for n, rate in enumerate(rates, 1)]
    (run / "metrics.jsonl").write_text("\n".join(['{"kind": "event", "step": 0}', *lines, '{"kind": "tra']))
    (run / "checkpoints/step-00000001").mkdir(parents=True)
    (run / "checkpoints/step-00000001/manifest.json").write_bytes(bytes(checkpoint_bytes))


def test_nothing_is_known_before_anything_has_begun(options):
    found = {one.run.name: one for one in estimate(options)}
    assert set(found) == {"M_d", "M_id", "M*_isd", "M*_isd-seed1"}
    assert all((one.steps_done, one.seconds, one.bytes) == (0, None, None) for one in found.values())
    assert not any(one.is_evaluated for one in found.values()) and not options.out.exists()


def test_a_run_tells_its_rate_and_that_of_its_other_seeds(options):
    """The first line of its log holds what happens once, and the last one is being written."""
    write_log(options.out / "runs/M*_isd", [0.5, 4.0, 2.0, 4.0], 1000)
    found = {one.run.name: one for one in estimate(options)}
    assert found["M*_isd-seed1"].seconds == 3 * 4 / 4.0 and found["M_d"].seconds is None
    assert found["M*_isd"].bytes == 2 * 1000 == found["M*_isd-seed1"].bytes
    assert found["M*_isd"].steps_done == 1 and found["M*_isd"].seconds == 2 * 4 / 4.0
    assert sorted(p.name for p in options.out.iterdir()) == ["runs"]
