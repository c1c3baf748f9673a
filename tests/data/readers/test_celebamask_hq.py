import json
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.celebamask_hq import read_celebamask_hq
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.errors import DataError
from collagan_dist.types import SPLITS, Sample
from tests.data.layouts import samples_of, splits_of, write_celebamask_hq
from tests.data.packed import recipe, replace_line

MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture(scope="module")
def published(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("hq") / "CelebAMask-HQ"
    return out, write_celebamask_hq(drawn, out)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three pictures, of which the reader needs no more than names."""
    for folder in ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno"):
        (tmp_path / folder).mkdir()
    rows = [f"{number} {number} {number + 1:06d}.jpg" for number in range(3)]
    (tmp_path / MAPPING).write_text("\n".join(["idx orig_idx orig_file", *rows]))
    return tmp_path


def read(root: Path) -> list[Sample]:
    return list(read_celebamask_hq(Recipe(dataset="celebamask_hq", root=str(root), out="out")))


def packed(root: Path, out: Path, **changes: object) -> dict[str, dict]:
    hq = {"dataset": "celebamask_hq", "labels": None, "store": "original", "store_size": 176}
    return samples_of(pack(recipe(root, out, **{**hq, **changes}), workers=1))


def label_map(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_label_maps_come_back_equal(drawn, published, tmp_path):
    root, names = published
    samples = packed(root, tmp_path / "out")
    assert samples.keys() == {f"{number}.jpg" for number in range(len(names))}
    splits = splits_of(drawn)
    for number, name in enumerate(names):
        sample = samples[f"{number}.jpg"]
        truth = (drawn / f"Label/img_celeba/{Path(name).stem}.png").read_bytes()
        assert np.array_equal(label_map(sample["seg.png"]), label_map(truth)), name
        assert sample["jpg"] == (drawn / "Img/img_celeba" / name).read_bytes()
        assert sample["__key__"] == f"{number:05d}" and sample["split"] == SPLITS[int(splits[name])]
        assert json.loads(sample["json"])["landmarks"] is None


def test_masks_of_half_the_size_keep_every_part_in_its_place(drawn, tmp_path):
    names = write_celebamask_hq(drawn, tmp_path / "hq", shrink=2)
    samples = packed(tmp_path / "hq", tmp_path / "out", splits=["test"])
    assert len(samples) == 6
    for source, sample in samples.items():
        stem = Path(names[int(source[:-4])]).stem
        truth = label_map((drawn / f"Label/img_celeba/{stem}.png").read_bytes())
        got = label_map(sample["seg.png"])
        assert got.shape == truth.shape and (got != truth).mean() < 0.02
        # Each label is within one mask pixel of where it was: eroded by two pixels, the truth still holds.
        for value in np.unique(truth):
            inside = cv2.erode((truth == value).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
            assert (got[inside] == value).all()


edit = partial(replace_line, MAPPING)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda root: (root / MAPPING).unlink(), f"{MAPPING}: this annotation file is missing"),
        (edit(1, "idx file"), f"{MAPPING}:1: must be the line `idx orig_idx orig_file`"),
        (edit(4, "2  119613"), f"{MAPPING}:4: must be two numbers"),
        (edit(4, "two 119613 119614.jpg"), f"{MAPPING}:4: must be two numbers"),
        (edit(4, "1 119613 119614.jpg"), f"{MAPPING}:4: picture 1 is listed for the second time"),
        (edit(4, "2 202599 202600.jpg"), f"{MAPPING}:4: '202600.jpg' is no picture of CelebA"),
        (edit(4, "2 202599 face.png"), f"{MAPPING}:4: 'face.png' is no picture of CelebA"),
        (lambda root: (root / "CelebA-HQ-img").rmdir(), "CelebA-HQ-img: no such folder"),
        (lambda root: (root / "CelebAMask-HQ-mask-anno").rmdir(), "CelebAMask-HQ-mask-anno: no such folder"),
    ],
)
def test_malformed_annotation(small, change, text):
    assert len(read(small)) == 3
    change(small)
    with pytest.raises(DataError, match=text):
        read(small)


def test_splits_are_celebas(small):
    last = {
        "000001": "train",
        "162770": "train",
        "162771": "valid",
        "182637": "valid",
        "182638": "test",
        "202599": "test",
    }
    for name, split in last.items():
        edit(2, f"0 1 {name}.jpg")(small)
        assert read(small)[0].split == split


def test_a_missing_picture_and_a_face_that_is_not_there_are_quarantined(published, tmp_path):
    small = Path(shutil.copytree(published[0], tmp_path / "hq"))
    (small / "CelebA-HQ-img/5.jpg").unlink()
    for path in (small / "CelebAMask-HQ-mask-anno/0").glob("00007_*"):
        if not path.name.endswith("hair.png"):
            path.unlink()
    assert len(packed(small, tmp_path / "out", store="crop")) == 58
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["00005", "00007"]
    assert "No such file" in lines[0]["reason"] and "no face" in lines[1]["reason"]
