import json

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.inference.complete import complete
from collagan_dist.inference.export import export
from collagan_dist.inference.model import Model
from collagan_dist.types import CLASSES

RNG = np.random.default_rng(3)


def photograph(drawn, height, width):
    picture = cv2.imread(str(drawn / "Img/img_celeba/000001.jpg"))[..., ::-1]
    return np.ascontiguousarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("shape", [(32, 32), (90, 60)])
def test_arrays_give_what_the_command_writes(trained_run, drawn, tmp_path, shape):
    """Bit for bit, also where the face is found, completed at the model's size and pasted."""
    image, hole = photograph(drawn, *shape), np.zeros(shape, bool)
    hole[10:25, 8:20] = True
    for name, pixels in (("image", image[..., ::-1]), ("hole", hole * np.uint8(255))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    complete(trained_run, tmp_path / "image.png", tmp_path / "out", str(tmp_path / "hole.png"))
    completed = Model.load(trained_run).complete(image, hole)
    assert np.array_equal(completed, cv2.imread(str(tmp_path / "out/image.completed.png"))[..., ::-1])
    assert not np.array_equal(completed[hole], image[hole])
    # Without a hole there are the labels and landmarks of the picture itself.
    complete(trained_run, tmp_path / "image.png", tmp_path / "none", "none")
    model = Model.load(trained_run)
    labels = cv2.imread(str(tmp_path / "none/image.labels.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(model.segment(image), labels)
    points = json.loads((tmp_path / "none/image.landmarks.json").read_text())
    assert np.array_equal(model.landmarks(image).round(2), points)


@pytest.mark.parametrize("shape", [(90, 60), (47, 130), (64, 64), (20, 20)])
def test_pictures_of_any_size(trained_run, drawn, shape):
    """Everything has the picture's size; only the hole changes, and all of it; landmarks scale with the picture."""
    model, image = Model.load(trained_run), photograph(drawn, *shape)
    for rows, columns in ((slice(0, 5), slice(0, 5)), (slice(-7, None), slice(2, 9)), (slice(3, 5), slice(None))):
        hole = np.zeros(shape, bool)
        hole[rows, columns] = True
        completed = model.complete(image, hole)
        assert completed.shape == image.shape and completed.dtype == np.uint8
        assert np.array_equal(completed[~hole], image[~hole])
        # What is in the hole decides nothing: it is not given to the networks.
        other = np.where(hole[..., None], 255 - image, image)
        assert np.array_equal(model.complete(other, hole)[hole], completed[hole])
    labels = model.segment(image)
    assert labels.shape == shape and labels.dtype == np.uint8 and labels.max() < len(CLASSES)
    points = model.landmarks(image)
    assert points.shape == (5, 2) and (points > -1).all() and (points < (shape[1], shape[0])).all()


def test_landmarks_are_in_the_pictures_pixels(trained_run, drawn):
    """A picture of three times the size, by repetition of its pixels, and a wider one have the same points."""
    model, image = Model.load(trained_run), photograph(drawn, 32, 32)
    points = model.landmarks(image)
    large = image.repeat(3, 0).repeat(3, 1)
    assert model.landmarks(large) == pytest.approx((points + 0.5) * 3 - 0.5)
    wide = cv2.copyMakeBorder(image, 0, 0, 10, 10, cv2.BORDER_CONSTANT)
    assert model.landmarks(wide) == pytest.approx(points + np.array([10, 0]))
    assert (
        np.array_equal(model.segment(wide)[:, 10:-10], model.segment(image)) and not model.segment(wide)[:, :10].any()
    )


def test_labels_lie_in_the_face_square(parser_run, drawn):
    """Of a model that tells some parts of a face."""
    model, image = Model.load(parser_run), photograph(drawn, 32, 32)
    labels = model.segment(image)
    assert len(np.unique(labels)) > 2
    found = model.segment(cv2.copyMakeBorder(image, 0, 0, 10, 10, cv2.BORDER_CONSTANT))
    assert np.array_equal(found[:, 10:-10], labels) and not found[:, :10].any() and not found[:, -10:].any()


def test_several_faces_of_an_array(trained_run, tmp_path):
    """Labels are those of all, as the command writes them; landmarks are those of the largest, its first."""
    image = np.concatenate([astronaut(), astronaut()[:, ::-1]], 1)
    cv2.imwrite(str(tmp_path / "image.png"), image[..., ::-1])
    complete(trained_run, tmp_path / "image.png", tmp_path, "none")
    model = Model.load(trained_run)
    labels = model.segment(image)
    assert np.array_equal(labels, cv2.imread(str(tmp_path / "image.labels.png"), cv2.IMREAD_UNCHANGED))
    points = json.loads((tmp_path / "image.landmarks.json").read_text())
    assert len(points) == 2 and np.array_equal(model.landmarks(image).round(2), points[0])


def test_extreme_holes_are_said(trained_run, drawn, capsys):
    model, image = Model.load(trained_run), photograph(drawn, 40, 60)
    completed = model.complete(image, np.ones((40, 60), bool))
    assert completed.shape == image.shape and "the hole is the whole picture" in capsys.readouterr().err
    assert np.array_equal(model.complete(image, np.zeros((40, 60), bool)), image)
    assert "the hole is empty" in capsys.readouterr().err


def test_wrong_arrays_are_refused(trained_run, landmarks_run, drawn):
    model, image = Model.load(trained_run), photograph(drawn, 32, 32)
    hole = np.ones((32, 32), bool)
    for wrong, message in (
        (image.astype(np.float32), r"image: is an array \(32, 32, 3\) of float32; give an array \(H, W, 3\) of uint8"),
        (image[..., 0], r"image: is an array \(32, 32\) of uint8"),
        (image[:0], "give one of 1 to"),
        (image.tolist(), "image: is a list"),
    ):
        for call in (lambda x: model.complete(x, hole), model.segment, model.landmarks):
            with pytest.raises(ConfigError, match=message):
                call(wrong)
    for wrong_hole in (hole.astype(np.uint8), hole[:31], None):
        with pytest.raises(ConfigError, match=r"hole: is .*; give an array \(32, 32\) of bool, true inside"):
            model.complete(image, wrong_hole)
    with pytest.raises(ConfigError, match="blend: 'x' is none of none, poisson"):
        model.complete(image, hole, blend="x")
    other = Model.load(landmarks_run)
    with pytest.raises(ConfigError, match="is M_d, which completes nothing"):
        other.complete(image, hole)
    with pytest.raises(ConfigError, match="is M_d, which does not segment"):
        other.segment(image)


def test_an_exported_model_is_the_same(trained_run, drawn, tmp_path):
    export(trained_run, tmp_path / "out")
    image, hole = photograph(drawn, 50, 40), RNG.random((50, 40)) < 0.2
    one, other = Model.load(trained_run), Model.load(tmp_path / "out", ["evaluate.readout=argmax"])
    assert np.array_equal(one.complete(image, hole, "poisson"), other.complete(image, hole, "poisson"))
    assert repr(other) == f"Model({str(tmp_path / 'out')!r}: M*_isd, step 7, 32 pixels)"
    with pytest.raises(ConfigError, match="is no run folder"):
        Model.load(tmp_path)
    (tmp_path / "out/generator.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        Model.load(tmp_path / "out")
