import json

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from collagan_dist.errors import DataError
from collagan_dist.inference.complete import CompleteOptions, complete
from collagan_dist.inference.model import Model
from collagan_dist.serve.completion import CompletionRequest, complete_upload
from collagan_dist.tasks.segmentation import PALETTE
from collagan_dist.types import CLASSES, FileInMemory


def upload(path):
    return FileInMemory(path.name, path.read_bytes())


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_an_upload_gives_what_the_command_writes(blend, two_runs, photo, hole, tmp_path):
    """Bit for bit, and by the same words."""
    complete(two_runs[0], photo, tmp_path / "out", str(hole), CompleteOptions(blend))
    answer = complete_upload(Model.load(two_runs[0]), CompletionRequest(upload(photo), upload(hole), blend))
    assert answer.completed == (tmp_path / "out/somebody.completed.png").read_bytes()
    assert answer.facts["landmarks"] == [json.loads((tmp_path / "out/somebody.landmarks.json").read_text())]
    (tmp_path / "parts.png").write_bytes(answer.parts)
    labels = cv2.imread(str(tmp_path / "out/somebody.labels.png"), cv2.IMREAD_UNCHANGED)
    with Image.open(tmp_path / "parts.png") as parts:
        assert np.array_equal(np.asarray(parts), labels)
        colours = np.asarray(parts.convert("RGBA"))
    assert len(np.unique(labels)) > 2
    assert np.array_equal(colours[..., :3], np.array(PALETTE, np.uint8)[labels])
    assert np.array_equal(colours[..., 3] > 0, labels > 0)
    assert answer.facts["classes"] == [CLASSES[n] for n in sorted(set(labels.ravel()) - {0})]


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_two_faces_give_what_the_command_and_arrays_give(blend, server, two_runs, tmp_path):
    """Bit for bit, by HTTP: two faces that the detector sees, and one hole across both."""
    pixels = np.concatenate([astronaut(), astronaut()[:, ::-1]], 1)
    hole = np.zeros(pixels.shape[:2], np.uint8)
    hole[140:150, 200:840] = 255
    # cd.Model completes as a picture of this name is completed.
    Image.fromarray(pixels).save(tmp_path / "image.png")
    Image.fromarray(hole).save(tmp_path / "hole.png")
    out = tmp_path / "out"
    complete(two_runs[0], tmp_path / "image.png", out, str(tmp_path / "hole.png"), CompleteOptions(blend))
    answer = server.complete("run", tmp_path / "image.png", tmp_path / "hole.png", blend)
    assert answer.parts["completed"] == (out / "image.completed.png").read_bytes()
    (tmp_path / "parts.png").write_bytes(answer.parts["parts"])
    with Image.open(tmp_path / "parts.png") as parts, Image.open(out / "image.labels.png") as labels:
        assert np.array_equal(np.asarray(parts), np.asarray(labels))
    points = json.loads((out / "image.landmarks.json").read_text())
    assert answer.facts["landmarks"] == points and np.shape(points) == (2, 5, 2)
    assert len(answer.facts["squares"]) == 2
    for left, top, side in answer.facts["squares"]:
        assert f"face square of {side} pixels at {left},{top}: by the detector" in answer.facts["notes"]
    completed = Model.load(two_runs[0]).complete(pixels, hole > 0, blend)
    assert np.array_equal(completed, np.asarray(Image.open(out / "image.completed.png")))
    changed = (completed != pixels).any(-1)
    assert not changed[hole == 0].any() and changed[hole > 0].mean() > 0.9


def test_the_words_are_those_of_the_command(two_runs, photo, hole, tmp_path, capsys):
    complete(two_runs[0], photo, tmp_path / "out", str(hole))
    said = capsys.readouterr().err
    answer = complete_upload(Model.load(two_runs[0]), CompletionRequest(upload(photo), upload(hole)))
    assert len(answer.facts["notes"]) > 1 and all(f"{note}\n" in said for note in answer.facts["notes"])
    ((left, top, side),) = answer.facts["squares"]
    assert f"face square of {side} pixels at {left},{top}: " in said


def test_a_model_that_completes_nothing_needs_no_hole(two_runs, photo, hole, tmp_path):
    model = Model.load(two_runs[1])
    complete(two_runs[1], photo, tmp_path / "none", "none")
    complete(two_runs[1], photo, tmp_path / "hole", str(hole))
    for given, folder in ((None, "none"), (upload(hole), "hole")):
        answer = complete_upload(model, CompletionRequest(upload(photo), given, "poisson"))
        assert answer.completed is None and answer.parts is None
        assert answer.facts["landmarks"] == [json.loads((tmp_path / folder / "somebody.landmarks.json").read_text())]
    with pytest.raises(DataError, match=r"somebody\.png: there is no hole"):
        complete_upload(Model.load(two_runs[0]), CompletionRequest(upload(photo), None))
