from pathlib import Path

import pytest

from collagan_dist.data.readers.celeba import read_aligned, read_in_the_wild
from collagan_dist.errors import DataError
from collagan_dist.types import SPLITS
from tests.data.layouts import rows_of, splits_of
from tests.data.packed import recipe


def test_samples_are_the_rows_of_the_annotation(drawn):
    samples = read_in_the_wild(recipe(drawn, drawn))
    rows, splits = rows_of(drawn), splits_of(drawn)
    assert [s.source for s in samples] == list(rows)
    for sample in samples:
        assert [str(int(v)) for point in sample.landmarks or () for v in point] == rows[sample.source]
        assert sample.split == SPLITS[int(splits[sample.source])]
        assert Path(str(sample.path)).is_file() and Path(str(sample.labels)).is_file()
    assert {s.split for s in read_in_the_wild(recipe(drawn, drawn, splits=("test",)))} == {"test"}


def test_aligned_pictures_have_a_folder_of_their_own(drawn):
    with pytest.raises(DataError, match=r"img_align_celeba: no such folder of pictures"):
        read_aligned(recipe(drawn, drawn))


@pytest.mark.parametrize(
    ("file", "old", "new", "text"),
    [
        ("Anno/list_landmarks_celeba.txt", "60\n", "61\n", "celeba.txt:1: announces 61 pictures, the file lists 60"),
        (
            "Anno/list_landmarks_celeba.txt",
            "000002.jpg",
            "000001.jpg",
            "celeba.txt:4: 000001.jpg is listed for the second",
        ),
        (
            "Eval/list_eval_partition.txt",
            "000002.jpg 0",
            "000002.jpg 3",
            "partition.txt:2: 000002.jpg needs one split number",
        ),
        ("Eval/list_eval_partition.txt", "000002.jpg 0\n", "", "partition.txt: 000002.jpg is missing"),
    ],
)
def test_wrong_annotation_is_named(copy_of_drawn, file, old, new, text):
    path = copy_of_drawn / file
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    with pytest.raises(DataError, match=text):
        read_in_the_wild(recipe(copy_of_drawn, copy_of_drawn))
