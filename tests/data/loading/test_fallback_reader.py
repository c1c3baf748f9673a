import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards import wire_format
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.errors import DataError
from tests.conftest import collagan
from tests.faults.test_bad_input import run
from tests.training.one_rank import batches, setup, together
from tests.training.small import small


@pytest.fixture
def copy(shards: Manifest, tmp_path: Path) -> Manifest:
    return read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))


def stored(manifest: Manifest, split: str, number: int) -> tuple[Path, wire_format.IndexEntry]:
    """The tar of a sample and where it is in there. Shards hold 20 samples."""
    shard = manifest.shards(split)[number // 20]
    index = wire_format.Index((manifest.folder / shard.index_name).read_bytes(), shard.bytes)
    return manifest.folder / shard.name, index[number % 20]


def damage(manifest: Manifest, split: str, number: int, how: str) -> str:
    """Damage a sample in place, sizes unchanged; its key."""
    path, row = stored(manifest, split, number)
    with path.open("r+b") as file:
        if how == "short":
            file.truncate(row.start + row.parts["json"][0] + 3)
        else:
            offset, size = row.parts[{"picture": "jpg", "labels": "seg.png", "json": "json"}[how]]
            file.seek(row.start + offset)
            file.write(bytes(size))  # (zeros behind an undamaged JPEG header may well decode)
    return row.key


@pytest.mark.parametrize("how", ["picture", "labels", "json"])
def test_the_next_undamaged_sample_takes_the_place(copy, shards, how):
    """On 1, 2 and 3 ranks alike, in every epoch; all other slots are those of the undamaged data."""
    for number in (7, 8, 47):  # 7 and 8 by 9; the last by the first
        damage(copy, "train", number, how)
    whole = batches(shards, 0, 1, range(9))
    for size in (2, 3):
        found = together(copy, size, range(9))
    instead = {7: 9, 8: 9, 47: 0}
    for mine, theirs in zip(found, whole, strict=True):
        assert mine.ids_B.tolist() == [instead.get(int(i), int(i)) for i in theirs.ids_B]
        same = mine.ids_B == theirs.ids_B
        assert np.array_equal(mine.image_B3HW.numpy()[same], theirs.image_B3HW.numpy()[same])


def test_a_tar_that_grows_short_costs_its_last_samples(copy):
    part = setup(copy, schedule__batch=12)
    loader = part.loader("train", part.view(training=True), 4)
    plan = [(np.arange(first, first + 4), np.zeros(4, np.int64)) for first in (0, 16, 20, 16)]
    running = loader.batches(iter(plan[:1]))
    next(running)
    damage(copy, "train", 18, "short")
    shown = [batch.ids_B.tolist() for batch in loader.batches(iter(plan[1:]))]
    assert shown == [[16, 17, 20, 20], [20, 21, 22, 23], [16, 17, 20, 20]]
    assert [one.number for one in loader.damaged] == [18, 19]
    assert all("train-000000.tar: sample" in one.reason and "cut short" in one.reason for one in loader.damaged)


def test_two_ranks_train_through_and_say_so(copy, tmp_path, capsys):
    """Samples are replaced and named once; a missing index is rebuilt."""
    keys = [damage(copy, "train", number, "picture") for number in (3, 30, 31)]
    index = copy.folder / "train-000001.idx"
    undamaged = index.read_bytes()
    index.unlink()
    damage(copy, "test", 2, "labels")
    config = tmp_path / "small.yaml"
    settings = {"schedule__batch": 12, "schedule__steps": 8, "evaluate__baselines": 4}
    config.write_text(to_yaml(small(copy.folder, **settings)))
    result = collagan("train", config, "--run", tmp_path / "run", ranks=2)
    assert result.stderr.count(f"rebuilt {index}") == 1 and index.read_bytes() == undamaged
    events = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    named = {e["sample"]: e["reason"] for e in events if e.get("event") == "quarantine"}
    assert sorted(named) == [3, 30, 31]
    for key, reason in zip(keys, [named[number] for number in sorted(named)], strict=True):
        assert f"sample {key} does not decode" in reason
        assert result.stderr.count(f"sample {key} does not decode; another sample takes its place") == 1

    evaluated = collagan("evaluate", tmp_path / "run", ranks=2)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["samples"] == 5 and metrics["damaged"] == 1 and "it was left out" in evaluated.stderr

    few = ["--set", "data.max_damaged=2"]
    stopped = collagan("train", config, "--run", tmp_path / "few", *few, ranks=2, check=False)
    text = "3 samples are damaged, more than data.max_damaged (2) allows"
    assert stopped.returncode != 0 and stopped.stderr.count(text) == 1, stopped.stderr
    code, alone = run(capsys, "train", config, "--run", tmp_path / "alone", *few)
    assert code == 3 and text in alone and "Traceback" not in alone


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"landmarks"', '"landmarkz"'),
        ("[[", "[,"),
        ('"width":88', '"width":00'),
        ('"height":88', '"height":-8'),
        ("]]", "9]"),
    ],
)
def test_a_json_that_says_something_else_is_damage(copy, old, new):
    path, row = stored(copy, "train", 5)
    offset, size = row.parts["json"]
    with path.open("r+b") as file:
        file.seek(row.start + offset)
        text = file.read(size).decode()
        assert old in text
        file.seek(row.start + offset)
        file.write(text.replace(old, new, 1).encode()[:size])
    part = setup(copy)
    loader = part.loader("train", part.view(training=True), 4)
    shown = [b.ids_B.tolist() for b in loader.batches(iter([(np.arange(4, 8), np.zeros(4, np.int64))]))]
    assert shown == [[4, 6, 6, 7]] and f"json of sample {row.key}" in loader.damaged[0].reason


def test_a_device_in_trouble_blames_no_sample(shards):
    part = setup(shards)
    loader = part.loader("train", part.view(training=True), 4)

    def broken(*_: object) -> None:
        raise RuntimeError("no memory left on the device")

    loader._read.decode._pipe.run = broken
    loader._read.decode._build_pipeline = lambda: loader._read.decode._pipe
    with pytest.raises(RuntimeError, match="no memory left"):
        next(loader.batches(iter([(np.arange(4), np.zeros(4, np.int64))])))
    assert not loader.damaged


def test_nothing_left_is_an_error(copy):
    for number in range(48):
        damage(copy, "train", number, "picture")
    with pytest.raises(DataError, match="no sample of the split 'train' is left"):
        batches(copy, 0, 1, range(1))
