"""The folder of drawn faces: CelebA's layout, the same bytes for any number of workers, complete or absent."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.faces.layout import draw_faces
from tests.faces.drawn import (
    SEED,
    face,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "faces"
    draw_faces(out, 40, SEED, workers=1)
    return out


def digests(out: Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_workers_draw_the_bytes_of_one(folder: Path, tmp_path: Path) -> None:
    finished: list[int] = []
    draw_faces(tmp_path / "faces", 40, SEED, workers=2, progress=finished.append)
    assert digests(tmp_path / "faces") == digests(folder)
    assert finished == sorted(finished)
    assert finished[-1] == 40


def test_layout_and_headers_are_celebas(folder: Path) -> None:
    names = [f"{number:06d}" for number in range(1, 41)]
    assert sorted(path.name for path in (folder / "Img/img_celeba").iterdir()) == [f"{name}.jpg" for name in names]
    assert sorted(path.name for path in (folder / "Label/img_celeba").iterdir()) == [f"{name}.png" for name in names]
    points = (folder / "Anno/list_landmarks_celeba.txt").read_text().splitlines()
    assert points[0] == "40"
    assert points[1] == (
        "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    )
    boxes = (folder / "Anno/list_bbox_celeba.txt").read_text().splitlines()
    assert boxes[:2] == ["40", "image_id x_1 y_1 width height"]
    for name, line, box in zip(names, points[2:], boxes[2:], strict=True):
        assert re.fullmatch(rf"{name}\.jpg( +\d+){{10}}", line)
        assert re.fullmatch(rf"{name}\.jpg( +\d+){{4}}", box)
        x, y, width, height = (int(word) for word in box.split()[1:])
        assert x >= 0 and y >= 0 and x + width <= 360 and y + height <= 440
        stored = np.array([int(word) for word in line.split()[1:]]).reshape(5, 2)
        assert np.abs(stored - face(int(name))[2]).max() <= 0.5
        assert (stored >= (x, y)).all() and (stored < (x + width, y + height)).all()
    assert "seed 7" in (folder / "README.txt").read_text()
    assert "collagan draw" in (folder / "README.txt").read_text()


def test_files_hold_the_drawn_face(folder: Path) -> None:
    picture, labels, _ = face(5)
    stored = cv2.imread(str(folder / "Img/img_celeba/000005.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(stored.astype(int) - picture).mean() < 3
    assert np.array_equal(cv2.imread(str(folder / "Label/img_celeba/000005.png"), cv2.IMREAD_UNCHANGED), labels)


def test_splits_are_80_10_10_in_order(folder: Path) -> None:
    lines = (folder / "Eval/list_eval_partition.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [f"{number:06d}.jpg" for number in range(1, 41)]
    assert [int(line.split()[1]) for line in lines] == [0] * 32 + [1] * 4 + [2] * 4


def test_a_finished_drawing_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    draw_faces(folder, 40, SEED)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(("count", "seed"), [(41, SEED), (40, SEED + 1)])
def test_another_drawing_is_refused(folder: Path, count: int, seed: int) -> None:
    before = digests(folder)
    with pytest.raises(DataError, match="another drawing"):
        draw_faces(folder, count, seed)
    assert digests(folder) == before


def test_a_foreign_folder_is_refused_untouched(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    out.mkdir()
    (out / "holiday.txt").write_text("mine")
    with pytest.raises(DataError, match="name another folder"):
        draw_faces(out, 2, SEED, workers=1)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"holiday.txt": "mine"}
    assert list(tmp_path.iterdir()) == [out]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    draw_faces(tmp_path / "faces", 2, SEED, workers=1)
    assert len(list((tmp_path / "faces/Img/img_celeba").iterdir())) == 2


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_drawing_that_stops_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def stop(finished: int) -> None:
        assert len(list(tmp_path.iterdir())) == 1, "the unfinished drawing is beside, under another name"
        assert not (tmp_path / "faces").exists()
        raise failure

    with pytest.raises(failure):
        draw_faces(tmp_path / "faces", 40, SEED, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_drawing_are_swept_up(tmp_path: Path) -> None:
    old, running = tmp_path / ".faces.partial-old", tmp_path / ".faces.partial-running"
    for leftover in (old, running):
        (leftover / "Img/img_celeba").mkdir(parents=True)
    os.utime(old / "Img/img_celeba", (0, 0))
    draw_faces(tmp_path / "faces", 1, SEED, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [running.name, "faces"]


def test_no_faces_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        draw_faces(tmp_path / "faces", 0, SEED)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        draw_faces(tmp_path / "file/faces", 2, SEED, workers=1)
