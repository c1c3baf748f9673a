import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from skimage.filters import gaussian
from skimage.transform import AffineTransform, warp

from collagan_dist.data.face_square import square_from_label_map, square_from_landmarks
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from tests.data.layouts import rows_of, samples_of, write_folder
from tests.data.loading.first_batch import first_batch
from tests.data.packed import folder_recipe, recipe


def test_crop_keeps_the_margin_square_around_the_face(drawn, shards):
    """Stored landmarks make a face square in the middle, 1/1.3 of the side; the stored pixels are those of the photo."""
    points = {name: np.array(row, float).reshape(5, 2) for name, row in rows_of(drawn).items()}
    for sample in samples_of(shards).values():
        meta = json.loads(sample["json"])
        square = square_from_landmarks(meta["landmarks"])
        assert np.allclose((square.x, square.y, square.side), (43.5, 43.5, 88 / 1.3), rtol=0, atol=0.7)
        # Where the annotated landmarks went says where every pixel went: scikit-image moves the photo there.
        annotated, stored = points[meta["source"]], np.array(meta["landmarks"])
        scale = np.ptp(stored, axis=0).max() / np.ptp(annotated, axis=0).max()
        shift = (stored - scale * annotated).mean(0)
        assert np.abs(scale * annotated + shift - stored).max() < 0.02
        photo = cv2.imread(str(drawn / "Img/img_celeba" / meta["source"]))[:, :, ::-1].astype(float)
        move = AffineTransform(scale=scale, translation=shift).inverse
        expected = warp(gaussian(photo, 0.3 / scale, channel_axis=2), move, output_shape=(88, 88), mode="reflect")
        stored_pixels = simplejpeg.decode_jpeg(sample["jpg"], "RGB")
        shifted = np.abs(np.roll(expected, 1, axis=1) - stored_pixels)
        assert np.abs(expected - stored_pixels).mean() < min(2.5, shifted.mean())


def test_original_keeps_the_jpegs_own_bytes(copy_of_drawn, tmp_path):
    """But a grey JPEG and one with an EXIF orientation, which readers take differently, become plain RGB."""
    pictures = copy_of_drawn / "Img/img_celeba"
    with Image.open(pictures / "000001.jpg") as image:
        image.convert("L").save(pictures / "000002.jpg", quality=95)
        turned = image.getexif()
        turned[0x0112] = 6
        image.save(tmp_path / "turned.jpg", exif=turned, quality=95)
    (tmp_path / "turned.jpg").replace(pictures / "000001.jpg")
    for name, sample in samples_of(pack(recipe(copy_of_drawn, tmp_path / "o", store="original"), workers=1)).items():
        changed = name in ("000001.jpg", "000002.jpg")
        assert json.loads(sample["json"]).get("reencoded", False) is changed
        if changed:
            image = Image.open(io.BytesIO(sample["jpg"]))
            assert (image.mode, image.size, dict(image.getexif())) == ("RGB", (360, 440), {})
        else:
            assert sample["jpg"] == (pictures / name).read_bytes()


ANNOTATIONS = {
    "both": {"labels": "../labels", "landmarks": "../faces.csv"},
    "landmarks": {"landmarks": "../faces.csv"},
    "labels": {"labels": "../labels"},
    "none": {},
}


def packed(tree: Path, out: Path, store: str, annotation: str) -> Manifest:
    return pack(folder_recipe(tree, out, store=store, store_size=176, **ANNOTATIONS[annotation]), workers=1)


def views(manifest: Manifest, annotation: str) -> dict[str, tuple]:
    """(picture, labels, points) of every training sample at 128x128, by key."""
    split = SplitReader(manifest, "train")
    asked = {"points": "landmarks" in ANNOTATIONS[annotation], "labels": "labels" in ANNOTATIONS[annotation]}
    batch = first_batch(manifest, image_size=128, **asked)
    columns = (batch.image_B3HW, batch.label_BHW, batch.points_BK2)
    return {
        split.key(row): tuple(None if column is None else column[row].numpy() for column in columns)
        for row in range(len(split))
    }


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
def test_crop_and_original_show_the_same_view(few, tmp_path, annotation):
    """Up to interpolation and reflection at the border: a view shifted by a pixel would differ more."""
    packings = {store: packed(few, tmp_path / store, store, annotation) for store in ("crop", "original")}
    crop, original = (views(manifest, annotation) for manifest in packings.values())
    assert crop.keys() == original.keys() and len(crop) > 8
    for key, (image, label, points) in crop.items():
        other, other_label, other_points = original[key]
        difference = np.abs(image - other).mean()
        shifted = min(np.abs(np.roll(image, 1, axis) - other).mean() for axis in (1, 2))
        assert difference < 0.6 * shifted and difference < 0.03, (key, difference, shifted)
        if label is not None:
            assert (label == other_label).mean() > 0.97
        if points is not None:
            assert np.abs(points - other_points).max() < 0.02
    for store, manifest in packings.items():  # the json says where the face is only if nothing else does
        for sample in samples_of(manifest).values():
            square = json.loads(sample["json"]).get("square")
            assert (square is not None) == (store == "original" and annotation in ("labels", "none"))
            if square is not None and annotation == "labels":
                labels = cv2.imdecode(np.frombuffer(sample["seg.png"], np.uint8), cv2.IMREAD_UNCHANGED)
                truth = square_from_label_map(labels)
                assert np.allclose((truth.x, truth.y, truth.side), square, atol=(1, 1, 0.4), rtol=0)


@pytest.mark.parametrize("store", ["crop", "original"])
@pytest.mark.parametrize(("annotation", "reason"), [("labels", "has 29 pixels"), ("none", "has 31 pixels")])
def test_faces_under_32_pixels_are_left_out(few, tmp_path, store, annotation, reason):
    shutil.copytree(few.parent, tmp_path, dirs_exist_ok=True)
    picture = np.full((40, 60, 3) if annotation == "none" else (90, 90, 3), 127, np.uint8)
    cv2.imwrite(str(tmp_path / "set/000001.jpg"), picture)
    labels = np.zeros(picture.shape[:2], np.uint8)
    labels[30:50, 30:48] = 1
    cv2.imwrite(str(tmp_path / "labels/000001.png"), labels)
    assert packed(tmp_path / "set", tmp_path / "out", store, annotation).quarantined == 1
    assert f"undersized: the face's square {reason}" in (tmp_path / "out/quarantine.jsonl").read_text()
