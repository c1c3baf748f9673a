import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from collagan_dist import rng
from collagan_dist.data.loading import holes
from collagan_dist.errors import DataError
from collagan_dist.inference.completion_job import CompletedFace, CompletedPhotograph, CompletionJob
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.inference.face_location import FaceWindow, GivenFaces
from collagan_dist.inference.face_model import load_face_model
from collagan_dist.inference.hole_source import HoleSource, Photograph
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import TEST_SEED
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.segmentation import read_labels
from collagan_dist.types import Batch, image_from_pixels


@pytest.mark.parametrize("blend", ["none", "poisson"])
@pytest.mark.parametrize("kind", ["block", "given"])
def test_a_picture_of_the_models_size_is_the_models_output_bit_by_bit(kind, blend, trained_run, drawn, tmp_path):
    source = cv2.imread(str(min((drawn / "Img/img_celeba").glob("*.jpg"))))[:360, :, ::-1]
    pixels = cv2.resize(source, (32, 32), interpolation=cv2.INTER_AREA)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    uid = np.array([rng.name_id("face")])
    keys = torch.from_numpy(rng.sample_keys(TEST_SEED, -1, uid))
    hole = holes.HOLES["block"](keys, 32)
    if kind == "given":
        hole = torch.from_numpy(np.random.default_rng(0).random((1, 1, 32, 32)) < 0.3)
        Image.fromarray(hole[0, 0].numpy()).save(tmp_path / "hole.png")
    config = read_config(trained_run)
    model, _ = load_face_model(trained_run, config)
    image = image_from_pixels(torch.from_numpy(pixels)[None])
    batch = Batch(
        image, holes.occlude(image, hole, kind, keys, config.hole.fill), hole, None, None, uid, np.array([-1]), keys
    )
    outputs = BLENDS[blend](model.predictor(batch), batch)
    expected = np.where(hole[0, 0].numpy()[..., None], to_bytes(composite(outputs["inpainting"], batch))[0], pixels)
    holes_of = HoleSource("block") if kind == "block" else HoleSource(None, tmp_path / "hole.png")
    job = CompletionJob(model, tmp_path, holes_of, tmp_path / "out", GivenFaces(), blend)
    ((name, (face,)),) = job.run(["face.png"])
    assert name == "face.png" and face.window == (0, 0, 32)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/face.completed.png")), expected)
    labels = read_labels(outputs["segmentation"])[0].numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/face.labels.png")), labels)
    points = str(model.read_landmarks(outputs)[0].round(2).tolist())
    assert (tmp_path / "out/face.landmarks.json").read_text() == f"{points}\n"


def test_results_come_in_order_with_a_reason_for_each_that_is_left_out(trained_run, tmp_path):
    names = [f"{n:02}.png" for n in range(20)]
    for name in names:
        Image.new("RGB", (50, 40), (int(name[:2]), 9, 9)).save(tmp_path / name)
    (tmp_path / "05.png").write_bytes(b"no picture")
    model, _ = load_face_model(trained_run, read_config(trained_run))
    job = CompletionJob(model, tmp_path, HoleSource("block"), tmp_path / "out", GivenFaces([(5, 5, 20)]), "none")
    found = dict(job.run(names))
    assert list(found) == names and isinstance(found.pop("05.png"), DataError)
    assert {face.window for (face,) in found.values()} == {(5, 5, 20)}
    assert len(list((tmp_path / "out").glob("*.completed.png"))) == 19


def one_face(window, number, points, colour):
    """A face of 4x4 pixels: class `number` in its left half, background in its right half; its hole is the left half."""
    scores, hole = torch.zeros(11, 4, 4), np.zeros((4, 4), bool)
    scores[number, :, :2], scores[0, :, 2:], hole[:, :2] = 1, 1, True
    pixels = torch.full((3, 4, 4), colour)
    return CompletedFace(FaceWindow(window, "as given"), -pixels, hole, pixels, scores, np.array(points, float))


def test_results_of_a_photograph_are_those_of_all_its_faces():
    """Squares overlap: the second one's class and hole lie over the first one's, its background does not."""
    photo = Photograph("p", np.full((4, 8, 3), 7, np.uint8), None, None)
    faces = [one_face((2, 0, 4), 3, [[0, 0]] * 5, 1.0), one_face((0, 0, 4), 5, [[1, 2]] * 5, -1.0)]
    result = CompletedPhotograph(photo, faces, "none")
    assert result.windows == [face.face for face in faces]
    np.testing.assert_array_equal(result.labels(), [[5, 5, 3, 3, 0, 0, 0, 0]] * 4)
    np.testing.assert_array_equal(result.landmarks(), [[[2, 0]] * 5, [[1, 2]] * 5])
    # A row a face below the heads, each pixel 32 times: what it sees, then its completion.
    sheet = result.sheet()
    assert sheet.shape[0] == 30 + 2 * 133 - 5
    for row, seen, done in ((40, 0, 255), (40 + 133, 255, 0)):
        assert sheet[row, 10].tolist() == [seen] * 3 and sheet[row, 10 + 133].tolist() == [done] * 3
    completed = result.completed()
    np.testing.assert_array_equal(completed[0, :, 0], [0, 0, 255, 255, 7, 7, 7, 7])
    np.testing.assert_array_equal(completed, completed[:1, :, :1].repeat(4, 0).repeat(3, 2))
