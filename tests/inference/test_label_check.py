import cv2
import numpy as np
import pytest

from collagan_dist.errors import DataError
from collagan_dist.inference.label_check import check_label_maps
from collagan_dist.inference.labelling import find_photographs, write_label_maps
from collagan_dist.inference.parsers import open_parser
from collagan_dist.types import CLASSES, SCORED_CLASSES
from tests.inference.photographs import contents


def test_check_is_the_dice_of_what_would_be_written(drawn, parser_run, tmp_path):
    """An independent count gives the same, and a parser agrees with its own maps exactly."""
    parser = open_parser(parser_run)
    exact, own = find_photographs(drawn), find_photographs(drawn, out=tmp_path / "own")
    found = check_label_maps(parser, exact, 16)
    write_label_maps(parser, own, 16)
    assert found.pictures == 60 and not found.without_map
    pairs = [[cv2.imread(str(p.path(s)), cv2.IMREAD_UNCHANGED).ravel() for s in p.samples] for p in (own, exact)]
    found_map, true = (np.concatenate(p) for p in pairs)
    expected = {
        name: 2 * ((found_map == c) & (true == c)).sum() / ((found_map == c).sum() + (true == c).sum())
        for c, name in enumerate(CLASSES)
    }
    mean = np.mean([expected[name] for name in SCORED_CLASSES])
    assert found.dice == pytest.approx(expected | {"mean": mean})
    assert found.true["hair"] == pytest.approx((true == 10).mean())
    assert found.found["face"] == pytest.approx((found_map == 1).mean())
    before = contents(own.maps)
    again = check_label_maps(parser, own, 16)
    assert set(again.dice.values()) == {1.0} and contents(own.maps) == before
    own.path(list(own.samples)[3]).unlink()
    assert (check_label_maps(parser, own, 16).pictures, check_label_maps(parser, own, 16).without_map) == (59, 1)
    with pytest.raises(DataError, match="holds no label map of these pictures"):
        check_label_maps(parser, find_photographs(drawn, out=tmp_path / "nothing"), 16)
    assert not (tmp_path / "nothing").exists()
