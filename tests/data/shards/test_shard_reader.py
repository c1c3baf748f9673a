import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError
from tests.data.layouts import samples_of
from tests.data.packed import recipe


def dali_samples(manifest: Manifest, split: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(picture, label map, json bytes) of DALI's own webdataset reader with our index files."""
    from nvidia.dali import fn, pipeline_def, types

    tars = [str(manifest.folder / s.name) for s in manifest.shards(split)]
    index = [str(manifest.folder / s.index_name) for s in manifest.shards(split)]

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def reader():
        jpg, seg, meta = fn.readers.webdataset(
            paths=tars, index_paths=index, ext=["jpg", "seg.png", "json"], missing_component_behavior="error"
        )
        return fn.decoders.image(jpg, output_type=types.RGB), fn.decoders.image(seg, output_type=types.ANY_DATA), meta

    pipe = reader()
    pipe.build()
    return [tuple(np.array(o.at(0)) for o in pipe.run()) for _ in range(manifest.samples(split))]


def all_readers_agree(manifest: Manifest, split: str) -> None:
    ours = SplitReader(manifest, split)
    others = [sample for sample in samples_of(manifest).values() if sample["split"] == split]
    dali = dali_samples(manifest, split)
    assert len(ours) == len(others) == len(dali) == manifest.samples(split)
    for number, (other, (picture, labels, meta)) in enumerate(zip(others, dali, strict=True)):
        mine = ours.read(number)
        assert mine.key == other["__key__"] == ours.key(number)
        assert mine.jpg.tobytes() == other["jpg"] and mine.labels.tobytes() == other["seg.png"]
        assert json.loads(other["json"])["landmarks"] == mine.landmarks and meta.tobytes() == other["json"]
        side = max(mine.width, mine.height)
        if mine.width == mine.height:
            image, label = Decoder(1, side, True, False, 1, torch.device("cpu"))([mine], np.zeros((1, 4)))
            assert (image[0].numpy() == picture).all() and (label[0].numpy() == labels[..., 0]).all()


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_drawn_faces_through_every_reader(shards, split):
    all_readers_agree(shards, split)


@pytest.mark.parametrize("store", ["crop", "original"])
@pytest.mark.parametrize(
    ("dataset", "labels"), [("celeba", "Label/img_celeba"), ("celeba_aligned", "Label/img_align_celeba")]
)
def test_photographs_through_every_reader(faces, tmp_path, store, dataset, labels):
    changes = {"dataset": dataset, "labels": labels, "store": store, "samples_per_shard": 30}
    manifest = pack(recipe(faces, tmp_path / "out", **changes), workers=2)
    assert {name: manifest.samples(name) for name in manifest.splits} == {"train": 75, "valid": 13, "test": 14}
    assert manifest.quarantined == 0
    verify(manifest.folder, deep=True)
    all_readers_agree(manifest, "test")
    if store == "original":
        for source, sample in samples_of(manifest).items():
            assert sample["jpg"] == (faces / labels.replace("Label", "Img") / source).read_bytes()


def test_a_tar_cut_short_after_the_check_is_an_error_and_no_crash(shards, tmp_path):
    copy = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    split = SplitReader(read_manifest(copy), "test")
    split.read(0)
    with (copy / "test-000000.tar").open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(DataError, match=r"test-000000.tar: sample .* is cut short"):
        for number in range(len(split)):
            split.read(number)


def test_a_split_that_is_dropped_gives_its_files_back(shards):
    gc.collect()
    gc.disable()
    try:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(5):
            split = SplitReader(shards, "train")
            [split.read(number) for number in range(len(split))]
        del split
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    finally:
        gc.enable()
