import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.celebamask_hq import read_celebamask_hq
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.errors import DataError
from tests.data.layouts import samples_of, splits_of, write_celebamask_hq
from tests.data.packed import recipe

MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"


@pytest.fixture(scope="module")
def published(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("hq") / "CelebAMask-HQ"
    return out, write_celebamask_hq(drawn, out)


@pytest.fixture
def small(published: tuple[Path, list[str]], tmp_path: Path) -> Path:
    """A copy of the data set to damage."""
    return Path(shutil.copytree(published[0], tmp_path / "hq"))


def packed(root: Path, out: Path, **changes: object) -> dict[str, dict]:
    hq = {"dataset": "celebamask_hq", "labels": None, "store": "original", "store_size": 176}
    return samples_of(pack(recipe(root, out, **{**hq, **changes}), workers=1))


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


def test_label_maps_come_back_equal(drawn, published, tmp_path):
    root, names = published
    samples = packed(root, tmp_path / "out")
    assert samples.keys() == {f"{number}.jpg" for number in range(len(names))}
    splits = splits_of(drawn)
    for number, name in enumerate(names):
        sample = samples[f"{number}.jpg"]
        truth = cv2.imread(str(drawn / f"Label/img_celeba/{Path(name).stem}.png"), cv2.IMREAD_UNCHANGED)
        assert np.array_equal(decoded(sample["seg.png"]), truth), name
        assert sample["jpg"] == (drawn / "Img/img_celeba" / name).read_bytes()
        assert sample["__key__"] == f"{number:05d}" and sample["split"] == ("train", "valid", "test")[int(splits[name])]
        assert json.loads(sample["json"])["landmarks"] is None


def test_masks_of_half_the_size_keep_every_part_in_its_place(drawn, tmp_path):
    names = write_celebamask_hq(drawn, tmp_path / "hq", shrink=2)
    samples = packed(tmp_path / "hq", tmp_path / "out", splits=["test"])
    assert len(samples) == 6
    for source, sample in samples.items():
        stem = Path(names[int(source[:-4])]).stem
        truth = cv2.imread(str(drawn / f"Label/img_celeba/{stem}.png"), cv2.IMREAD_UNCHANGED)
        got = decoded(sample["seg.png"])
        assert got.shape == truth.shape and (got != truth).mean() < 0.02
        # Each label is within one mask pixel of where it was: eroded by two pixels, the truth still holds.
        for value in np.unique(truth):
            inside = cv2.erode((truth == value).astype(np.uint8), np.ones((5, 5), np.uint8), borderValue=1) > 0
            assert (got[inside] == value).all()


def remove_masks(root: Path) -> None:
    for path in (root / "CelebAMask-HQ-mask-anno/0").glob("00003_*"):
        path.unlink()


def rewrite(name: str, image: Image.Image | bytes):  # type: ignore[no-untyped-def]
    def change(root: Path) -> None:
        path = root / "CelebAMask-HQ-mask-anno/0" / name
        path.write_bytes(image) if isinstance(image, bytes) else image.save(path)

    return change


def edit(number: int, line: str):  # type: ignore[no-untyped-def]
    def change(root: Path) -> None:
        lines = (root / MAPPING).read_text().splitlines()
        lines[number - 1] = line
        (root / MAPPING).write_text("\n".join(lines))

    return change


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (remove_masks, ["0/00003_*.png: there is no mask of any part"]),
        (rewrite("00003_nose.png", b"not a picture"), ["0/00003_nose.png: the mask is damaged"]),
        (rewrite("00003_nose.png", Image.new("L", (180, 220))), ["00003_nose.png: the mask is 180x220", "00003_skin.png is 360x440"]),
        (rewrite("00003_skin.png", Image.new("L", (360, 360))), ["00003_skin.png: the mask is 360x360", "360x440 picture"]),
        (rewrite("00003_skin.png", Image.new("1", (9000, 11000))), ["00003_skin.png: the mask is 9000x11000"]),
        (lambda root: (root / MAPPING).unlink(), [f"{MAPPING}: this annotation file is missing"]),
        (edit(1, "idx file"), [f"{MAPPING}:1: must be the line `idx orig_idx orig_file`"]),
        (edit(4, "2  119613"), [f"{MAPPING}:4: must be two numbers"]),
        (edit(4, "two 119613 119614.jpg"), [f"{MAPPING}:4: must be two numbers"]),
        (edit(4, "1 119613 119614.jpg"), [f"{MAPPING}:4: picture 1 is listed for the second time"]),
        (edit(4, "2 202599 202600.jpg"), [f"{MAPPING}:4: '202600.jpg' is no picture of CelebA"]),
        (edit(4, "2 202599 face.png"), [f"{MAPPING}:4: 'face.png' is no picture of CelebA"]),
        (lambda root: (root / "CelebA-HQ-img").rename(root / "img"), ["CelebA-HQ-img: no such folder"]),
        (lambda root: (root / "CelebAMask-HQ-mask-anno").rename(root / "a"), ["CelebAMask-HQ-mask-anno: no such folder"]),
    ],
)  # fmt: skip
def test_malformed_annotation(small, tmp_path, change, parts):  # type: ignore[no-untyped-def]
    change(small)
    with pytest.raises(DataError) as caught:
        packed(small, tmp_path / "out")
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("last", ["000001", "162770", "162771", "182637", "182638", "202599"])
def test_splits_are_celebas(small, tmp_path, last):
    edit(2, f"0 1 {last}.jpg")(small)
    samples = read_celebamask_hq(Recipe(dataset="celebamask_hq", root=str(small), out=str(tmp_path)))
    first = next(s for s in samples if s.key == "00000")
    assert first.split == ("train" if int(last) <= 162770 else "valid" if int(last) <= 182637 else "test")


def test_planning_opens_no_mask(small, tmp_path):
    for path in (small / "CelebAMask-HQ-mask-anno/0").iterdir():
        path.unlink()
    assert len(read_celebamask_hq(Recipe(dataset="celebamask_hq", root=str(small), out=str(tmp_path)))) == 60


def test_a_missing_picture_and_a_face_that_is_not_there_are_quarantined(small, tmp_path):
    (small / "CelebA-HQ-img/5.jpg").unlink()
    for path in (small / "CelebAMask-HQ-mask-anno/0").glob("00007_*"):
        if not path.name.endswith("hair.png"):
            path.unlink()
    assert len(packed(small, tmp_path / "out", store="crop")) == 58
    lines = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["00005", "00007"]
    assert "No such file" in lines[0]["reason"] and "no face" in lines[1]["reason"]
