import json
import shutil
import tarfile

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.pipeline import open_pipeline
from collagan_dist.errors import DataError
from tests.data.server import serving


def test_samples_are_those_of_the_tars(shards):
    """Label maps and json equal, pictures as OpenCV decodes them, in the order of the shards."""
    found = {sample["__key__"]: sample for sample in open_pipeline(shards.folder, "valid")}
    stored = {}
    for shard in shards.shards("valid"):
        with tarfile.open(shards.folder / shard.name) as tar:
            stored |= {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
    assert list(found) == [name.removesuffix(".jpg") for name in stored if name.endswith(".jpg")]
    assert len(found) == shards.samples("valid") > 0
    for key, sample in found.items():
        assert sample["json"] == json.loads(stored[f"{key}.json"])
        labels = cv2.imdecode(np.frombuffer(stored[f"{key}.seg.png"], np.uint8), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(sample["seg.png"], labels) and sample["seg.png"].dtype == np.uint8
        picture = cv2.imdecode(np.frombuffer(stored[f"{key}.jpg"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert sample["jpg"].dtype == np.uint8 and np.abs(sample["jpg"].astype(int) - picture).max() <= 2


def test_workers_share_the_shards(shards):
    """As for torch's DataLoader and webdataset's own methods: each sample once."""
    assert len(shards.shards("train")) > 1
    pipeline = open_pipeline(shards.folder, "train").shuffle(10).map(lambda sample: sample["__key__"])
    keys = list(DataLoader(pipeline, num_workers=2, batch_size=None))
    assert len(keys) == len(set(keys)) == shards.samples("train")


def test_shards_behind_a_url(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serving(shards.folder) as server:
        keys = [sample["__key__"] for sample in open_pipeline(server.url, "test")]
    assert keys == [sample["__key__"] for sample in open_pipeline(shards.folder, "test")] and keys


def test_a_damaged_sample_is_named(shards, tmp_path):
    folder = tmp_path / "packed"
    shutil.copytree(shards.folder, folder)
    shard = read_manifest(folder).shards("test")[0]
    content = bytearray((folder / shard.name).read_bytes())
    start = content.index(b"\xff\xd8\xff")
    content[start : start + 4] = b"none"
    (folder / shard.name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{shard.name}: sample \d+ cannot be used: .*; pack the data set again"):
        list(open_pipeline(folder, "test"))


def test_a_shard_that_ends_too_early_is_named(shards, tmp_path):
    """A tar ends, for its readers, where a header is damaged."""
    folder = tmp_path / "packed"
    shutil.copytree(shards.folder, folder)
    shard = read_manifest(folder).shards("test")[0]
    with tarfile.open(folder / shard.name) as tar:
        third = [member for member in tar.getmembers() if member.name.endswith(".jpg")][2]
    with (folder / shard.name).open("r+b") as file:
        file.seek(third.offset)
        file.write(bytes(512))
    with pytest.raises(DataError, match=rf"{shard.name}: is damaged after 2 of {shard.samples} samples"):
        list(open_pipeline(folder, "test"))
