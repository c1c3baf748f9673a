import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from collagan_dist.data.loading.fallback_reader import check_damage_limit
from collagan_dist.data.loading.loader import Loader
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.errors import DataError
from tests.conftest import collagan
from tests.data.packed import damage_sample, overwrite, stored
from tests.faults.test_bad_input import run
from tests.runs.run_folders import events, write_config
from tests.training.one_rank import batches, setup, together
from tests.training.small import small


@pytest.fixture
def copy(shards: Manifest, tmp_path: Path) -> Manifest:
    return read_manifest(shutil.copytree(shards.folder, tmp_path / "copy"))


def first_ids(loader: Loader, ids: range) -> list[int]:
    """Numbers of the samples that are shown when a batch of `ids` is asked for."""
    return next(loader.batches(iter([(np.array(ids), np.zeros(len(ids), np.int64))]))).ids_B.tolist()


@pytest.fixture
def loader(copy: Manifest) -> Loader:
    part = setup(copy)
    return part.loader("train", part.view(training=True), 4)


@pytest.mark.parametrize("part", ["jpg", "seg.png", "json"])
def test_the_next_undamaged_sample_takes_the_place(copy, shards, part):
    """On 1, 2 and 3 ranks alike, in every epoch; all other slots are those of the undamaged data."""
    instead = {7: 9, 8: 9, 47: 0}
    for number in instead:
        damage_sample(copy, "train", number, part)
    for size in (2, 3):
        found = together(copy, size, range(9))
    for mine, theirs in zip(found, batches(shards, 0, 1, range(9)), strict=True):
        assert mine.ids_B.tolist() == [instead.get(int(i), int(i)) for i in theirs.ids_B]
        same = mine.ids_B == theirs.ids_B
        assert np.array_equal(mine.image_B3HW.numpy()[same], theirs.image_B3HW.numpy()[same])


def test_a_tar_that_grows_short_costs_its_last_samples(copy, loader):
    assert first_ids(loader, range(4)) == [0, 1, 2, 3]
    tar, entry = stored(copy, "train", 18)
    os.truncate(tar, entry.start + entry.parts["json"][0] + 3)
    for _ in range(2):
        assert first_ids(loader, range(16, 20)) == [16, 17, 20, 20]
        assert first_ids(loader, range(20, 24)) == [20, 21, 22, 23]
    assert [one.number for one in loader.damaged] == [18, 19]
    assert all("train-000000.tar: sample" in one.reason and "cut short" in one.reason for one in loader.damaged)


def test_two_ranks_replace_and_name_each_sample_once(copy, tmp_path, capsys):
    """A missing index is rebuilt once, too."""
    keys = {number: damage_sample(copy, "train", number) for number in (3, 30, 31)}
    index = copy.folder / "train-000001.idx"
    undamaged = index.read_bytes()
    index.unlink()
    config = write_config(small(copy.folder, schedule__batch=12, schedule__steps=4), tmp_path)
    result = collagan("train", config, "--out", tmp_path / "run", ranks=2)
    assert result.stderr.count(f"rebuilt {index}") == 1 and index.read_bytes() == undamaged
    reasons = {event["sample"]: event["reason"] for event in events(tmp_path / "run", "quarantine")}
    assert reasons.keys() == keys.keys()
    for number, key in keys.items():
        assert f"sample {key} does not decode" in reasons[number]
        assert result.stderr.count(f"sample {key} does not decode; another sample takes its place") == 1
    code, text = run(capsys, "train", config, "--run", tmp_path / "few", "--set", "data.max_damaged=2")
    assert code == 3 and "3 samples are damaged, more than data.max_damaged (2) allows" in text
    with pytest.raises(DataError) as error:
        check_damage_limit(copy.folder, 3, 2)
    assert error.value.raised_on_all_ranks


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
def test_a_json_of_other_content_is_damage(copy, loader, old, new):
    tar, entry = stored(copy, "train", 5)
    offset, size = entry.parts["json"]
    at = entry.start + offset
    text = tar.read_bytes()[at : at + size].decode()
    assert old in text
    overwrite(tar, at, text.replace(old, new, 1).encode()[:size])
    assert first_ids(loader, range(4, 8)) == [4, 6, 6, 7]
    assert f"json of sample {entry.key}" in loader.damaged[0].reason


def test_a_device_in_trouble_blames_no_sample(loader):
    def broken(*_: object) -> None:
        raise RuntimeError("no memory left on the device")

    dali = loader._read.decode._decode
    dali._pipe.run = broken
    dali._build = lambda: dali._pipe
    with pytest.raises(RuntimeError, match="no memory left"):
        first_ids(loader, range(4))
    assert not loader.damaged


def test_nothing_left_is_an_error(copy):
    for number in range(48):
        damage_sample(copy, "train", number)
    with pytest.raises(DataError, match="no sample of the split 'train' is left"):
        batches(copy, 0, 1, range(1))
