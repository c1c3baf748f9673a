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
