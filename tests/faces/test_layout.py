import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.faces.layout import draw_faces
from collagan_dist.faces.render import draw_face
from tests.faces.drawn import SEED, face


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "faces"
    draw_faces(out, 40, SEED, workers=1)
    return out


def contents(out):
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_two_workers_draw_the_bytes_of_one(folder, tmp_path):
    finished = []
    draw_faces(tmp_path / "faces", 40, SEED, workers=2, progress=finished.append)
    assert contents(tmp_path / "faces") == contents(folder)
    assert finished == sorted(finished) and finished[-1] == 40


def test_layout_and_headers_are_celebas(folder):
    names = [f"{number:06d}" for number in range(1, 41)]
    for kind in ("Img", "Label"):
        assert sorted(p.stem for p in (folder / kind / "img_celeba").iterdir()) == names
    points = (folder / "Anno/list_landmarks_celeba.txt").read_text().splitlines()
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    assert points[:2] == ["40", header]
    boxes = (folder / "Anno/list_bbox_celeba.txt").read_text().splitlines()
    assert boxes[:2] == ["40", "image_id x_1 y_1 width height"]
    for name, line, box in zip(names, points[2:], boxes[2:], strict=True):
        assert re.fullmatch(rf"{name}\.jpg( +\d+){{10}}", line) and re.fullmatch(rf"{name}\.jpg( +\d+){{4}}", box)
        x, y, width, height = (int(word) for word in box.split()[1:])
        assert min(x, y) >= 0 and x + width <= 360 and y + height <= 440
        stored = np.array([int(word) for word in line.split()[1:]]).reshape(5, 2)
        assert np.abs(stored - face(int(name))[2]).max() <= 0.5
        assert (stored >= (x, y)).all() and (stored < (x + width, y + height)).all()
    splits = [0] * 32 + [1] * 4 + [2] * 4
    lines = (folder / "Eval/list_eval_partition.txt").read_text().splitlines()
    assert [line.split() for line in lines] == [[f"{i:06d}.jpg", str(split)] for i, split in enumerate(splits, 1)]
    assert "seed 7" in (folder / "README.txt").read_text()


def test_files_hold_the_drawn_face(folder):
    picture, labels, _ = face(5)
    stored = cv2.imread(str(folder / "Img/img_celeba/000005.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(stored.astype(int) - picture).mean() < 3
    assert np.array_equal(cv2.imread(str(folder / "Label/img_celeba/000005.png"), cv2.IMREAD_UNCHANGED), labels)


def test_a_finished_drawing_is_left_alone_and_another_one_refused(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    draw_faces(folder, 40, SEED)
    for count, seed in ((41, SEED), (40, SEED + 1)):
        with pytest.raises(DataError, match="another drawing"):
            draw_faces(folder, count, seed)
    with pytest.raises(DataError, match=r"40 faces of seed 7\), not 40 faces of seed 7, coupling 0.5"):
        draw_faces(folder, 40, SEED, coupling=0.5)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("place", "count", "error", "message"),
    [
        ("", 2, DataError, "name another folder"),
        ("file/faces", 2, DataError, "cannot write"),
        ("faces", 0, ConfigError, "at least 1"),
    ],
)
def test_drawings_that_cannot_be_made(tmp_path, place, count, error, message):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(error, match=message):
        draw_faces(tmp_path / place, count, SEED, workers=1)
    assert contents(tmp_path) == {Path("file"): b"mine"}


def test_a_drawing_that_stops_leaves_nothing(tmp_path):
    def stop(finished):
        assert len(list(tmp_path.iterdir())) == 1, "the unfinished drawing is beside, under another name"
        assert not (tmp_path / "faces").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_faces(tmp_path / "faces", 40, SEED, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_drawing_are_deleted(tmp_path):
    old, running = tmp_path / ".faces.partial-old", tmp_path / ".faces.partial-running"
    for leftover in (old, running):
        (leftover / "Img/img_celeba").mkdir(parents=True)
    os.utime(old / "Img/img_celeba", (0, 0))
    (tmp_path / "faces").mkdir()  # an empty folder is filled
    draw_faces(tmp_path / "faces", 1, SEED, workers=1)
    assert len(contents(tmp_path / "faces")) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "faces"]


def test_a_drawing_says_how_coupled_its_parts_are(folder, tmp_path):
    """Without the option all bytes are those of the time before it."""
    assert (folder / "draw.json").read_text() == '{"drawing": "collagan draw", "version": 1, "seed": 7, "count": 40}\n'
    for _ in range(2):  # the second time it is finished
        draw_faces(tmp_path / "faces", 3, SEED, workers=1, coupling=0.25)
    assert '"coupling": 0.25' in (tmp_path / "faces/draw.json").read_text()
    assert "3 drawn faces, seed 7, coupling 0.25." in (tmp_path / "faces/README.txt").read_text()
    picture, labels, _ = draw_face(SEED, 3, 0.25)
    assert np.array_equal(cv2.imread(str(tmp_path / "faces/Label/img_celeba/000003.png"), cv2.IMREAD_UNCHANGED), labels)
    assert not np.array_equal(picture, face(3)[0])
