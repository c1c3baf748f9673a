import json

import pytest

from collagan_dist.data.shards.sample_index import SampleIndex, SampleLine, encode_line, encode_samples, is_sample_index

PICTURE, LABELS = (2048, 100, "a/b.jpg"), (512, 40, "a/b.seg.png")
LINE = SampleLine(key="a/b", width=9, height=8, landmarks=None, square=[4.0, 4.0, 6.0], picture=PICTURE, labels=LABELS)
HEAD = b'{"collagan_samples": %d, "samples": %d}'


def index(lines: list[bytes], tar_bytes: int = 10240) -> SampleIndex:
    return SampleIndex(encode_samples(lines), tar_bytes)


def test_lines_come_back():
    content = encode_line(LINE)
    found = index([content, content])
    assert len(found) == 2 and found.line(1) == LINE and is_sample_index(encode_samples([])[:64])
    assert found[0] == ("a/b", 512, 1636, {"jpg": (1536, 100), "seg.png": (0, 40)}, content)
    alone = index([encode_line(LINE.model_copy(update={"labels": None}))])
    assert alone[0][1:4] == (2048, 100, {"jpg": (0, 100)})


@pytest.mark.parametrize(
    "changes",
    [
        {"picture": [100, 20, "a"]}, {"picture": [10200, 100, "a"]}, {"picture": [512, -1, "a"]}, {"picture": [512, 10]},
        {"picture": None}, {"labels": [1 << 60, 1, "a"]}, {"key": ""}, {"key": "x" * 20_000}, {"width": 0}, {"landmarks": [[1, 2]]},
    ],
    ids=str,
)  # fmt: skip
def test_a_line_that_points_elsewhere_is_refused(changes):
    line = json.dumps({**json.loads(encode_line(LINE)), **changes}).encode()
    with pytest.raises(ValueError, match=r"^(line 2 of its index|sample a/b does not lie in its tar)"):
        index([line])[0]


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", HEAD % (2, 0) + b"\n", HEAD % (1, 1) + b"\n", HEAD % (1, 0)])
def test_what_is_no_index_is_refused(content):
    with pytest.raises(ValueError, match="its index"):
        SampleIndex(content, 10240)
