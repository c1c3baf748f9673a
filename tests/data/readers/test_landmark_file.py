import json

import pytest

from collagan_dist.data.readers.landmark_file import read_landmark_file
from collagan_dist.errors import DataError

POINTS = [(10.0, 20.5), (30.0, 20.0), (20.0, 30.0), (12.0, 40.0), (28.0, 40.0)]


def test_points_of_one_picture_and_of_many(tmp_path):
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    one.write_text(json.dumps(POINTS))
    many.write_text(json.dumps({"a/b.jpg": POINTS, "c": POINTS}))
    assert read_landmark_file(one, "photo") == {"photo": POINTS}
    assert read_landmark_file(many, None) == {"a/b": POINTS, "c": POINTS}
    with pytest.raises(DataError, match="of one picture, but the input is a folder"):
        read_landmark_file(one, None)


def test_celebas_list(drawn):
    found = read_landmark_file(drawn / "Anno/list_landmarks_celeba.txt", None)
    line = (drawn / "Anno/list_landmarks_celeba.txt").read_text().splitlines()[2].split()
    assert len(found) == 60 and [f"{v:g}" for point in found[line[0].removesuffix(".jpg")] for v in point] == line[1:]


@pytest.mark.parametrize("text", ["[[1, 2]]", '{"a": [[1, 2, 3]]}', "[[NaN, 1]]", "{", '{"a": 3}'])
def test_what_is_malformed_is_refused(text, tmp_path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=r"bad\.json.*of five points"):
        read_landmark_file(tmp_path / "bad.json", "a")
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        read_landmark_file(tmp_path / "none.json", "a")
