"""The square at which training looks: of landmarks, of label maps, of neither; the same for both ways of storing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from collagan_dist.data.face_square import (
    Square,
    pixel_box,
    snap_to_pixels,
    square_from_label_map,
    square_from_landmarks,
    square_from_size,
)
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.faces.render import draw_face
from collagan_dist.types import CLASSES, MARGIN
from tests.data.layouts import rows_of, samples_of, write_folder


def differences(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(side ratio, x, y) of label squares against landmark squares, in shares of the latter's side."""
    rows = []
    for labels, points in pairs:
        truth, found = square_from_landmarks(points), square_from_label_map(labels)
        assert found is not None
        rows.append((found.side / truth.side, (found.x - truth.x) / truth.side, (found.y - truth.y) / truth.side))
    return np.array(rows)


def check(found: np.ndarray) -> None:
    """The medians agree; nine in ten squares lie within a fifth in size and a tenth in place."""
    side, x, y = np.median(found, axis=0)
    assert abs(side - 1) < 0.035 and abs(x) < 0.01 and abs(y) < 0.015, (side, x, y)
    close = (np.abs(found[:, 0] - 1) < 0.2) & (np.abs(found[:, 1:]) < 0.1).all(1)
    assert close.mean() > 0.9, close.mean()


def test_label_squares_of_drawn_faces_are_those_of_their_landmarks() -> None:
    drawn = [draw_face(11, number)[1:] for number in range(120)]
    check(differences(drawn))


@pytest.mark.parametrize("kind", ["celeba", "align_celeba"])
def test_label_squares_of_photographs_are_those_of_their_landmarks(faces: Path, kind: str) -> None:
    name = "list_landmarks_align_celeba" if kind == "align_celeba" else "list_landmarks_celeba"
    pairs = [
        (
            cv2.imread(str(faces / f"Label/img_{kind}/{Path(file).stem}.png"), cv2.IMREAD_UNCHANGED),
            np.array(row, float).reshape(5, 2),
        )
        for file, row in rows_of(faces, name).items()
    ]
    check(differences(pairs))


def test_a_label_square_by_hand() -> None:
    labels = np.full((100, 120), 10, np.uint8)
    labels[20:61, 30:70] = 1
    labels[61:71, 45:50] = CLASSES.index("lower_lip")
    assert square_from_label_map(labels) == Square(49.5, 70 - 0.57 * 40, 1.62 * 40)
    assert (
        square_from_label_map(np.full((9, 9), 10, np.uint8)) is None
        and square_from_label_map(np.zeros((9, 9), np.uint8)) is None
    )


@pytest.mark.parametrize(("width", "height"), [(176, 176), (360, 440), (441, 360), (51, 50)])
def test_the_margin_of_the_middle_is_what_the_picture_holds(width: int, height: int) -> None:
    side = min(width, height)
    left, top, found = pixel_box(square_from_size(width, height).scaled(MARGIN))
    assert found == side and abs(left - (width - side) / 2) <= 0.5 and abs(top - (height - side) / 2) <= 0.5


def test_a_snapped_square_has_the_margin_that_a_crop_keeps() -> None:
    rng = np.random.default_rng(0)
    for x, y, side in rng.uniform((50, 50, 30), (400, 300, 200), (200, 3)):
        square = Square(x, y, side)
        near = snap_to_pixels(square)
        margin = pixel_box(square.scaled(MARGIN))
        assert pixel_box(near.scaled(MARGIN)) == margin == pixel_box(snap_to_pixels(near).scaled(MARGIN))
        assert near.x - near.side * MARGIN / 2 == pytest.approx(margin[0] - 0.5)
        assert max(abs(near.x - x), abs(near.y - y)) <= 1 and abs(near.side - side) <= 0.5 / MARGIN


ANNOTATIONS = {
    "both": {"labels": "../labels", "landmarks": "../faces.csv"},
    "landmarks": {"landmarks": "../faces.csv"},
    "labels": {"labels": "../labels"},
    "none": {},
}


def packed(tree: Path, out: Path, store: str, annotation: str) -> Manifest:
    recipe = Recipe.model_validate(
        {
            "dataset": "folder", "root": str(tree), "out": str(out), "store": store, "store_size": 176,
            **ANNOTATIONS[annotation],
        },
        strict=False,
    )  # fmt: skip
    return pack(recipe, workers=1)


def views(manifest: Manifest, annotation: str) -> dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray | None]]:
    """(picture, labels, points) of every training sample at 128x128, by key."""
    split = SplitReader(manifest, "train")
    view = View(128, "none", 0, points=annotation in ("both", "landmarks"), labels=annotation in ("both", "labels"))
    loader = Loader(split, view, 4, 1, torch.device("cpu"))
    result = {}
    for start in range(0, len(split), 4):
        ids = np.arange(start, min(start + 4, len(split)))
        batch = next(loader.batches(iter([(ids, np.zeros(len(ids), int))])))
        for row, number in enumerate(ids):
            label = batch.label_BHW[row].numpy() if batch.label_BHW is not None else None
            points = batch.points_BK2[row].numpy() if batch.points_BK2 is not None else None
            result[split.key(int(number))] = (batch.image_B3HW[row].numpy(), label, points)
    return result


@pytest.fixture(scope="module")
def few(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen pictures; their labels and landmarks lie beside the folder, so that no test takes label maps for pictures."""
    place = tmp_path_factory.mktemp("few")
    write_folder(drawn, place / "set", columns=())
    (place / "set/labels").rename(place / "labels")
    lines = (place / "set/faces.csv").read_text().splitlines()
    (place / "set/faces.csv").unlink()
    (place / "faces.csv").write_text("\n".join(lines[:17]))
    for path in sorted((place / "set").glob("*.jpg"))[16:]:
        path.unlink()
    return place / "set"


@pytest.mark.parametrize("annotation", list(ANNOTATIONS))
def test_crop_and_original_show_the_same_view(few: Path, tmp_path: Path, annotation: str) -> None:
    """Up to interpolation and reflection at the border: a view shifted by a pixel would differ more."""
    crop = views(packed(few, tmp_path / "c", "crop", annotation), annotation)
    original = views(packed(few, tmp_path / "o", "original", annotation), annotation)
    assert crop.keys() == original.keys() and len(crop) > 8
    for key, (image, label, points) in crop.items():
        other, other_label, other_points = original[key]
        difference = np.abs(image - other).mean()
        shifted = min(np.abs(np.roll(image, 1, axis) - other).mean() for axis in (1, 2))
        assert difference < 0.6 * shifted and difference < 0.03, (key, difference, shifted)
        if label is not None:
            assert other_label is not None and (label == other_label).mean() > 0.97
        if points is not None:
            assert other_points is not None and np.abs(points - other_points).max() < 0.02


def test_the_square_is_noted_only_where_it_is_needed(few: Path, tmp_path: Path) -> None:
    for annotation in ANNOTATIONS:
        for store in ("crop", "original"):
            samples = samples_of(packed(few, tmp_path / annotation / store, store, annotation)).values()
            has = {"square" in json.loads(s["json"]) for s in samples}
            assert has == {store == "original" and annotation in ("labels", "none")}


def test_squares_of_originals_are_those_of_the_label_maps(few: Path, tmp_path: Path) -> None:
    for sample in samples_of(packed(few, tmp_path / "o", "original", "labels")).values():
        x, y, side = json.loads(sample["json"])["square"]
        truth = square_from_label_map(cv2.imdecode(np.frombuffer(sample["seg.png"], np.uint8), cv2.IMREAD_UNCHANGED))
        assert truth is not None and max(abs(truth.x - x), abs(truth.y - y)) <= 1 and abs(truth.side - side) < 0.4


def test_a_shard_without_the_square_is_seen_in_the_middle(shards: Manifest) -> None:
    from collagan_dist.data.face_square import stored_square

    assert stored_square(None, None, 176, 176) == square_from_size(176, 176)
    assert stored_square(None, [1.0, 2.0, 3.0], 176, 176) == Square(1, 2, 3)
    assert stored_square([[0, 0], [10, 0]], [1.0, 2.0, 3.0], 176, 176).side == 32
    assert SplitReader(shards, "test").read(0).square is None


@pytest.mark.parametrize("store", ["crop", "original"])
@pytest.mark.parametrize(("annotation", "reason"), [("labels", "has 29 pixels"), ("none", "has 31 pixels")])
def test_faces_under_32_pixels_are_left_out(
    few: Path, tmp_path: Path, store: str, annotation: str, reason: str
) -> None:
    shutil.copytree(few.parent, tmp_path, dirs_exist_ok=True)
    picture = np.full((40, 60, 3) if annotation == "none" else (90, 90, 3), 127, np.uint8)
    cv2.imwrite(str(tmp_path / "set/000001.jpg"), picture)
    labels = np.zeros(picture.shape[:2], np.uint8)
    labels[30:50, 30:48] = 1
    cv2.imwrite(str(tmp_path / "labels/000001.png"), labels)
    assert packed(tmp_path / "set", tmp_path / "out", store, annotation).quarantined == 1
    assert f"undersized: the face's square {reason}" in (tmp_path / "out/quarantine.jsonl").read_text()
