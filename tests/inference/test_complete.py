import json

import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.complete import complete


def test_only_completions_are_blended(landmarks_run, trained_run, drawn, tmp_path):
    picture = drawn / "Img/img_celeba/000001.jpg"
    with pytest.raises(ConfigError, match="no completions to blend"):
        complete(landmarks_run, picture, tmp_path / "out", blend="poisson")
    (sheet,) = complete(trained_run, picture, tmp_path / "out", "O6", "poisson")
    assert sheet.is_file()


def test_a_hole_has_the_shape_of_the_picture_or_of_its_square(trained_run, tmp_path):
    for name, (height, width) in {"photo": (48, 36), "whole": (96, 72), "square": (20, 20), "wrong": (20, 50)}.items():
        picture = np.zeros((height, width, 3), np.uint8)
        picture[height // 4 : height // 2] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    for name in ("whole", "square"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / name, str(tmp_path / f"{name}.png"))
    with pytest.raises(DataError, match=r"is 50x20, of another shape than the picture \(36x48\)"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / "out", str(tmp_path / "wrong.png"))
    with pytest.raises(ConfigError, match="only how a model is evaluated"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / "out", sets=["seed=3"])


def test_a_folder_is_completed_inside_the_hole_alone_and_to_the_same_bytes_again(trained_run, drawn, tmp_path):
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        picture = cv2.imread(str(drawn / f"Img/img_celeba/{number:06d}.jpg"))[:360]
        cv2.imwrite(str(tmp_path / f"in/{number}.png"), cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA))
    hole = np.zeros((32, 32), np.uint8)
    hole[8:24, 4:20] = 255
    cv2.imwrite(str(tmp_path / "hole.png"), hole)
    for out in ("one", "two"):
        sheets = complete(trained_run, tmp_path / "in", tmp_path / out, str(tmp_path / "hole.png"))
        assert [sheet.name for sheet in sheets] == ["1.sheet.png", "2.sheet.png"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    for number in (1, 2):
        original, done = (cv2.imread(str(tmp_path / f)) for f in (f"in/{number}.png", f"one/{number}.completed.png"))
        changed = (original != done).any(axis=-1)
        assert changed[hole > 0].any() and not changed[hole == 0].any()
        labels = cv2.imread(str(tmp_path / f"one/{number}.labels.png"), cv2.IMREAD_UNCHANGED)
        points = json.loads((tmp_path / f"one/{number}.landmarks.json").read_text())
        assert labels.shape == (32, 32) and len(points) == 5


def test_what_cannot_be_completed_is_named(trained_run, tmp_path):
    for folder, names in {"none": [], "two": ["a.jpg", "a.png"], "one": ["a.jpg"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    for source, hole, message in (
        ("no", None, "no such picture or folder"),
        ("none", None, "holds no picture"),
        ("two", None, "two pictures are called a;"),
        ("one", None, r"a\.jpg: is an empty file"),
        ("one", "nothing", "--hole nothing: must be a PNG file"),
    ):
        with pytest.raises((DataError, ConfigError), match=message):
            complete(trained_run, tmp_path / source, tmp_path / "out", hole)
