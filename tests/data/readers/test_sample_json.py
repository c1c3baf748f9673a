import json

import pytest

from collagan_dist.data.readers.sample_json import read_sample_json
from collagan_dist.types import LANDMARKS

POINTS = ((1, 2), (3, 2), (2.5, 3), (1, 4), (3, 4))
PAIRS = [list(point) for point in POINTS]


@pytest.mark.parametrize(
    "found",
    [
        {"landmarks": PAIRS},
        {"landmarks": [number for point in PAIRS for number in point]},
        {"landmarks": dict(zip(LANDMARKS, PAIRS, strict=True))},
        {"landmarks": None, "kps": PAIRS},
    ],
)
def test_usual_forms_of_five_points(found):
    assert read_sample_json(json.dumps({"caption": "x", **found}).encode()).landmarks == POINTS


def test_other_keys():
    found = read_sample_json(b'{"identity": 7, "width": 30, "height": 40, "square": [1, 2.5, 3], "score": NaN}')
    assert found == (None, "7", (30, 40), [1.0, 2.5, 3.0])
    assert read_sample_json(b'{"identity": null, "width": 30, "square": [1, 2]}') == (None, None, None, None)
    assert read_sample_json(b'"a caption"') == (None, None, None, None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "its json:1: is no JSON"),
        (b"[" * 1000, "nested more than"),
        (b" " * (1 << 20) + b"{}", "more than 1048576"),
        (b'{"landmarks": [[1, 2]]}', "landmarks of its json has 1 items; needed are five points"),
        (b'{"landmarks": [[1, 2], [1, 2], [1, 2], [1, 2], [1, NaN]]}', "five points"),
        (b'{"kps": "1 2"}', "kps of its json has no list"),
        (b'{"landmarks": [[true, 2], [1, 2], [1, 2], [1, 2], [1, 2]]}', "five points"),
    ],
)
def test_what_is_wrong_is_said(content, said):
    with pytest.raises(ValueError, match=said):
        read_sample_json(content)
