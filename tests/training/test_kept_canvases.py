"""data.keep: what was decoded once is not decoded again, and nothing that is learned changes."""

import json
import shutil

import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.errors import ConfigError
from collagan_dist.training import kept_canvases
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.data.packed import damage_sample
from tests.runs.run_folders import events
from tests.training.small import equal, small, weights

# 48 samples: steps 12, 24 and 36 begin an epoch.
LONG = {"schedule__steps": 30, "schedule__batch": 4}


@pytest.mark.parametrize("keep", ["host", "device"])
@pytest.mark.parametrize("labels", [True, False])
def test_weights_are_equal_and_the_first_epoch_alone_decodes(shards, tmp_path, monkeypatch, keep, labels):
    call, decoded = Decoder.__call__, []

    def counted(self, samples, regions):
        decoded.append(len(samples) if len(samples) == 4 else 0)  # not those of picture grids
        return call(self, samples, regions)

    tasks = {} if labels else {"model": {"widths": {"generator": 4, "discriminator": 4}, "tasks": ["inpainting"]}}
    train(small(shards.folder, **LONG, **tasks), tmp_path / "none", World())
    monkeypatch.setattr(Decoder, "__call__", counted)
    config = small(shards.folder, **LONG, **tasks, data__keep=keep)
    train(config, tmp_path / keep, World())
    assert equal(weights(tmp_path / "none", 30), weights(tmp_path / keep, 30))
    assert sum(decoded) == 48


def test_a_continued_run_and_damaged_samples_are_as_without_it(shards, tmp_path):
    """A start has an empty store; a damaged sample is replaced and named in each epoch's batches alike."""
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))
    for number, how in ((3, "jpg"), (17, "seg.png"), (40, "json")):
        damage_sample(copy, "train", number, how)
    for name, keep, stops in (("none", "none", (30,)), ("whole", "host", (30,)), ("parts", "host", (17, 30))):
        for steps in stops:
            config = small(copy.folder, **{**LONG, "schedule__steps": steps}, data__keep=keep)
            train(config, tmp_path / name, World())
    final = weights(tmp_path / "none", 30)
    assert equal(final, weights(tmp_path / "whole", 30)) and equal(final, weights(tmp_path / "parts", 30))
    named = [[e["sample"] for e in events(tmp_path / name, "quarantine")] for name in ("none", "whole")]
    assert sorted(named[0]) == sorted(named[1]) == [3, 17, 40]


def test_two_ranks_share_one_store(shards, tmp_path):
    """Their losses are those of two ranks without a store, and nothing is left in shared memory."""
    before = set(kept_canvases._SHARED_MEMORY.glob("collagan-*"))
    found = []
    for keep in ("none", "host"):
        path = tmp_path / f"{keep}.yaml"
        path.write_text(to_yaml(small(shards.folder, **LONG, data__keep=keep, log__every=5)))
        collagan("train", path, "--out", tmp_path / keep, ranks=2)
        lines = [json.loads(line) for line in (tmp_path / keep / "metrics.jsonl").read_text().splitlines()]
        found.append([line["loss/total"] for line in lines if line["kind"] == "train"])
    assert found[0] == found[1] and len(found[0]) == 6
    assert equal(weights(tmp_path / "none", 30), weights(tmp_path / "host", 30))
    assert set(kept_canvases._SHARED_MEMORY.glob("collagan-*")) == before


def test_what_does_not_fit_is_refused_with_numbers(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_canvases, "_free_memory", lambda setup, shared: ("this machine", 400_000))
    said = "48 decoded pictures of 44x44 take 371.9 kB, and this machine has 400.0 kB free"  # a tenth is left to others
    with pytest.raises(ConfigError, match=said):
        train(small(shards.folder, data__keep="host"), tmp_path / "run", World())
    assert not (tmp_path / "run").exists()
