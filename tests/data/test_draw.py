"""Drawn faces: the same for ever, laid out like CelebA, with labels and landmarks that agree with the picture."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.faces.canvas import project
from collagan_dist.faces.layout import draw_faces
from collagan_dist.faces.render import draw_face, landmarks, paint
from collagan_dist.faces.sampling import sample_traits
from collagan_dist.faces.traits import Traits
from collagan_dist.types import CLASSES, FACE_SQUARE, LANDMARKS, MARGIN

SEED = 7
FACES = range(1, 61)
FACE, LEFT_EYE, RIGHT_EYE, UPPER_LIP, LOWER_LIP, HAIR = 1, 4, 5, 7, 9, 10


@cache
def face(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw_face(SEED, number)


@cache
def traits(number: int) -> Traits:
    return sample_traits(SEED, number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "faces"
    draw_faces(out, 40, SEED, workers=1)
    return out


def digests(out: Path) -> dict[str, str]:
    files = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def centroid(labels: np.ndarray, value: int) -> np.ndarray:
    rows, columns = np.nonzero(labels == value)
    return np.array([columns.mean(), rows.mean()])


def bare(number: int) -> bool:
    """Neither hair nor a frame can cover an eye."""
    return traits(number).glasses is None and "fringe" not in traits(number).hair.style


def test_two_workers_draw_the_bytes_of_one(folder: Path, tmp_path: Path) -> None:
    finished: list[int] = []
    draw_faces(tmp_path / "faces", 40, SEED, workers=2, progress=finished.append)
    assert digests(tmp_path / "faces") == digests(folder)
    assert finished == sorted(finished)
    assert finished[-1] == 40


def test_a_face_depends_on_seed_and_number_alone() -> None:
    first, second = draw_face(3, 11), draw_face(3, 11)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    pictures = [draw_face(seed, number)[0].tobytes() for seed in (1, 2, 3) for number in (1, 2, 3)]
    assert len(set(pictures)) == len(pictures)


def test_shapes_and_types() -> None:
    picture, labels, points = face(1)
    assert (picture.shape, picture.dtype) == ((440, 360, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((440, 360), np.uint8)
    assert (points.shape, points.dtype) == ((5, 2), np.float64)


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


def test_every_class_appears_and_no_other() -> None:
    seen = np.sum([np.bincount(face(number)[1].ravel(), minlength=len(CLASSES)) > 20 for number in FACES], axis=0)
    assert len(seen) == len(CLASSES)
    assert (seen > 0).all()
    assert 15 <= seen[CLASSES.index("teeth")] <= 50, "teeth show in about half the faces"
    assert (np.delete(seen, [CLASSES.index("teeth"), CLASSES.index("hair")]) >= 45).all()


def test_teeth_are_labelled_only_where_the_mouth_is_open() -> None:
    for number in FACES:
        assert bool((face(number)[1] == CLASSES.index("teeth")).any()) == (traits(number).mouth.gap > 0), number


def test_eye_landmarks_are_the_middles_of_the_eyes() -> None:
    checked = [number for number in FACES if bare(number)]
    assert len(checked) > 30
    for number in checked:
        _, labels, points = face(number)
        for index, value in ((0, LEFT_EYE), (1, RIGHT_EYE)):
            assert np.linalg.norm(centroid(labels, value) - points[index]) < 1.5, (number, LANDMARKS[index])
            x, y = np.rint(points[index]).astype(int)
            assert labels[y, x] == value, (number, LANDMARKS[index])


def test_nose_landmark_lies_on_the_nose() -> None:
    for number in FACES:
        _, labels, points = face(number)
        x, y = np.rint(points[2]).astype(int)
        assert labels[y, x] == CLASSES.index("nose"), number


def test_mouth_landmarks_are_the_ends_of_the_lips() -> None:
    for number in FACES:
        _, labels, points = face(number)
        rows, columns = np.nonzero((labels == UPPER_LIP) | (labels == LOWER_LIP))
        axis = points[4] - points[3]
        axis /= np.linalg.norm(axis)
        reach = np.column_stack([columns, rows]) @ axis
        assert abs(reach.min() - points[3] @ axis) < 2, number
        assert abs(reach.max() - points[4] @ axis) < 2, number


def test_left_is_left_once_the_roll_is_undone() -> None:
    for number in FACES:
        _, labels, points = face(number)
        roll = traits(number).pose.roll
        across = np.array([np.cos(roll), np.sin(roll)])
        left_eye, right_eye, _, left_mouth, right_mouth = points @ across
        assert left_eye < right_eye and left_mouth < right_mouth, number
        if bare(number):
            assert centroid(labels, LEFT_EYE) @ across < centroid(labels, RIGHT_EYE) @ across, number


def test_the_square_around_the_stored_landmarks_lies_in_the_picture() -> None:
    extents = []
    for number in range(1, 301):
        corners = landmarks(traits(number))
        points = np.rint(project(traits(number).pose, corners).points(corners))
        low, high = points.min(0), points.max(0)
        extent, centre = (high - low).max(), (low + high) / 2
        half = FACE_SQUARE * MARGIN * extent / 2
        assert (centre - half >= 0).all() and (centre + half <= (359, 439)).all(), number
        extents.append(extent)
    assert 59 <= min(extents) < 64 and 79 < max(extents) <= 85


def test_both_eyes_of_a_face_match() -> None:
    """Mean colours of the two eyes of one face are closer than those of eyes of different faces."""
    means = np.array(
        [[face(n)[0][face(n)[1] == value].mean(0) for value in (LEFT_EYE, RIGHT_EYE)] for n in FACES if bare(n)]
    )
    own = np.linalg.norm(means[:, 0] - means[:, 1], axis=1)
    other = np.linalg.norm(means[:, 0] - np.roll(means[:, 1], 1, axis=0), axis=1)
    assert np.median(own) < 0.6 * np.median(other)
    sizes = np.array([[(face(n)[1] == value).sum() for value in (LEFT_EYE, RIGHT_EYE)] for n in FACES if bare(n)])
    # A turned head foreshortens one of them.
    assert np.abs(np.log(sizes[:, 0] / sizes[:, 1])).max() < 0.8


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its neighbours."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def test_picture_and_labels_show_the_same_outlines() -> None:
    """What changes its colour with the paint of the lips and of the hair is what is labelled so."""
    for number in (1, 2, 3, 6, 8, 13):
        person = traits(number)
        lips = replace(person, mouth=replace(person.mouth, rgb=(20.0, 220.0, 40.0)))
        hair = replace(person, hair=replace(person.hair, rgb=(40.0, 60.0, 240.0)))
        for changed, values in ((lips, (UPPER_LIP, LOWER_LIP)), (hair, (HAIR,))):
            picture, labels, _ = paint(changed)
            painted = np.abs(picture.astype(int) - face(number)[0]).max(axis=-1) > 30
            labelled = np.isin(labels, values)
            # Edges are smooth in one and hard in the other: they may differ by a pixel, and by no more.
            beyond = (painted & ~grown(labelled)) | (labelled & ~grown(painted))
            assert beyond.sum() <= 0.02 * labelled.sum(), (number, values)


def test_frames_of_glasses_are_face_and_lenses_change_nothing() -> None:
    wearers = [number for number in range(1, 121) if traits(number).glasses is not None]
    assert len(wearers) >= 5
    for number in wearers:
        without = paint(replace(traits(number), glasses=None))[1]
        labels = paint(traits(number))[1]
        # Hair that hangs over a frame stays hair, so whatever the glasses changed is face.
        assert (labels[labels != without] == FACE).all(), number
        assert (labels == LEFT_EYE).any() and (labels == RIGHT_EYE).any(), number


def test_hair_covers_brows() -> None:
    covered = 0
    for number in FACES:
        if traits(number).hair.style in ("fringe", "long_fringe"):
            bald = paint(replace(traits(number), hair=replace(traits(number).hair, style="bald")))[1]
            covered += int((face(number)[1][np.isin(bald, (2, 3))] == HAIR).sum())
    assert covered > 0


def test_faces_vary() -> None:
    drawn = [traits(number) for number in range(1, 61)]
    assert len({person.hair.style for person in drawn}) >= 8
    assert 2 <= sum(person.glasses is not None for person in drawn) <= 16
    brightness = [sum(person.head.skin) / 3 for person in drawn]
    assert min(brightness) < 80 and max(brightness) > 190
    assert max(abs(person.pose.roll) for person in drawn) > np.radians(12)


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
