"""Ranks: the same samples, views, holes and noise for every world size; metrics without copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.group import Group
from collagan_dist.setup import Setup, training_order
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World
from tests.conftest import collagan
from tests.training.small import small

CPU = torch.device("cpu")


def setup(manifest: Manifest, device: torch.device = CPU, **changes: object) -> Setup:
    """What one rank trains with, without the other ranks' processes: reading needs none."""
    config = small(manifest.folder, **changes)
    return Setup(
        config,
        World(),
        device,
        group := Group(World(), device),
        Engine(config.runtime, group),
        manifest,
        build_tasks(config),
    )


def batches(
    manifest: Manifest, rank: int, size: int, steps: range, kind: str = "block", window: int = 128
) -> list[Batch]:
    part = setup(manifest, schedule__batch=12, hole__kind=kind, data__window=window)
    loader = part.loader("train", part.view(training=True), 12 // size)
    order = training_order(part.config, manifest)
    assert order.fully_shuffled == (window > 2)
    return list(loader.batches(order.step(step, World(rank=rank, size=size)) for step in steps))


def together(manifest: Manifest, size: int, steps: range, **how: object) -> list[Batch]:
    """The batches of one rank, once they were seen to be bit-equal to those of `size` ranks put together."""
    alone = batches(manifest, 0, 1, steps, **how)
    shared = [batches(manifest, rank, size, steps, **how) for rank in range(size)]
    for step in steps:
        for field in ("ids_B", "epoch_B"):
            assert (getattr(alone[step], field) == np.concatenate([getattr(s[step], field) for s in shared])).all()
        for field in ("image_B3HW", "input_B3HW", "hole_B1HW", "label_BHW", "points_BK2", "keys_B2"):
            assert torch.equal(getattr(alone[step], field), torch.cat([getattr(s[step], field) for s in shared])), field
    return alone


@pytest.mark.parametrize(("kind", "window"), [("block", 128), ("pattern", 128), ("noise", 128), ("block", 2)])
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_together_see_what_one_rank_sees(shards: Manifest, size: int, kind: str, window: int) -> None:
    """Two epochs and more: samples, augmented pictures, labels, points, holes, fills and noise keys are bit-equal."""
    alone = together(shards, size, range(9), kind=kind, window=window)
    seen = np.concatenate([b.ids_B for b in alone])
    epochs = np.concatenate([b.epoch_B for b in alone])
    assert sorted(seen[epochs == 0]) == sorted(seen[epochs == 1]) == list(range(48))


def test_views_differ_between_epochs_and_not_between_runs(shards: Manifest) -> None:
    first, again = batches(shards, 0, 1, range(8), "block"), batches(shards, 0, 1, range(8), "block")
    assert all(torch.equal(a.input_B3HW, b.input_B3HW) for a, b in zip(first, again, strict=True))
    by_epoch = [
        {int(i): x for b in part for i, x in zip(b.ids_B, b.image_B3HW, strict=True)} for part in (first[:4], first[4:])
    ]
    assert all(not torch.equal(by_epoch[0][i], by_epoch[1][i]) for i in range(48))


def test_no_two_samples_share_their_randomness(shards: Manifest) -> None:
    first = batches(shards, 0, 1, range(8), "noise")
    keys = [tuple(k) for b in first for k in b.keys_B2.tolist()]
    assert len(set(keys)) == len(keys) == 96  # two epochs
    assert not set(keys) & {tuple(k) for k in setup_keys(shards, seed=1)}


def setup_keys(manifest: Manifest, seed: int) -> list[list[int]]:
    part = setup(manifest, schedule__batch=12, seed=seed)
    loader = part.loader("train", part.view(training=True), 12)
    plan = iter([training_order(part.config, manifest).step(0, World())])
    return next(loader.batches(plan)).keys_B2.tolist()


def test_ddp_learns_as_one_rank_does(shards: Manifest, tmp_path: Path) -> None:
    """Losses of 2 ranks and of 1 rank with the same global batch agree up to batch statistics per rank."""
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__batch=12, schedule__steps=3, log__every=1)))
    collagan("train", config, "--run", tmp_path / "one")
    collagan("train", config, "--run", tmp_path / "two", ranks=2)
    lines = {
        name: [json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    }
    losses = {name: [x["loss/inpainting/rec"] for x in rows if x["kind"] == "train"] for name, rows in lines.items()}
    assert losses["one"] == pytest.approx(losses["two"], rel=0.02)
    assert json.loads((tmp_path / "two/world.json").read_text())["world_size"] == 2


def test_metrics_do_not_depend_on_the_number_of_ranks(shards: Manifest, tmp_path: Path) -> None:
    """6 test samples on 1, 2 and 4 ranks (two of which get one sample fewer): the same metrics.json."""
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, schedule__steps=2, evaluate__baselines=3)))
    collagan("train", config, "--run", tmp_path / "run")
    found = []
    for ranks in (0, 2, 4):
        collagan("evaluate", tmp_path / "run", ranks=ranks)
        found.append(json.loads((tmp_path / "run/metrics.json").read_text()))
    assert found[0]["samples"] == 6 and found[0]["baselines_subset"]["samples"] == 3
    flat = [_flat(f) for f in found]
    assert flat[0].keys() == flat[1].keys() == flat[2].keys()
    for key, value in flat[0].items():
        assert flat[1][key] == pytest.approx(value, rel=1e-4) and flat[2][key] == pytest.approx(value, rel=1e-4), key


def _flat(tree: dict, path: str = "") -> dict[str, float]:
    leaves = {}
    for key, value in tree.items():
        leaves |= _flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return {k: v for k, v in leaves.items() if isinstance(v, (int, float))}
