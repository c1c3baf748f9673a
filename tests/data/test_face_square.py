from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.data.face_square import (
    Square,
    pixel_box,
    snap_to_pixels,
    square_from_label_map,
    square_from_landmarks,
    square_from_size,
    stored_square,
)
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.faces.render import draw_face
from collagan_dist.types import CLASSES, MARGIN
from tests.data.layouts import rows_of


def check(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The medians agree; nine in ten label squares lie within a fifth in size and a tenth in place of the landmarks'."""
    rows = []
    for labels, points in pairs:
        truth, found = square_from_landmarks(points), square_from_label_map(labels)
        rows.append((found.side / truth.side - 1, (found.x - truth.x) / truth.side, (found.y - truth.y) / truth.side))
    found_N3 = np.abs(rows)
    assert (np.abs(np.median(rows, axis=0)) < (0.035, 0.01, 0.015)).all()
    assert (found_N3 < (0.2, 0.1, 0.1)).all(1).mean() > 0.9


def test_label_squares_of_drawn_faces_are_those_of_their_landmarks():
    check([draw_face(11, number)[1:] for number in range(120)])


@pytest.mark.parametrize("kind", ["celeba", "align_celeba"])
def test_label_squares_of_photographs_are_those_of_their_landmarks(faces, kind):
    pairs = []
    for file, row in rows_of(faces, f"list_landmarks_{kind}").items():
        labels = cv2.imread(str(faces / f"Label/img_{kind}/{Path(file).stem}.png"), cv2.IMREAD_UNCHANGED)
        pairs.append((labels, np.array(row, float).reshape(5, 2)))
    check(pairs)


def test_a_label_square_by_hand():
    labels = np.full((100, 120), 10, np.uint8)
    labels[20:61, 30:70] = 1
    labels[61:71, 45:50] = CLASSES.index("lower_lip")
    assert square_from_label_map(labels) == Square(49.5, 70 - 0.57 * 40, 1.62 * 40)
    for nothing_but in (CLASSES.index("hair"), 0):
        assert square_from_label_map(np.full((9, 9), nothing_but, np.uint8)) is None


@pytest.mark.parametrize(("width", "height"), [(176, 176), (360, 440), (441, 360), (51, 50)])
def test_the_margin_of_the_middle_is_what_the_picture_holds(width, height):
    side = min(width, height)
    left, top, found = pixel_box(square_from_size(width, height).scaled(MARGIN))
    assert found == side and abs(left - (width - side) / 2) <= 0.5 and abs(top - (height - side) / 2) <= 0.5


def test_a_snapped_square_has_the_margin_that_a_crop_keeps():
    rng = np.random.default_rng(0)
    for x, y, side in rng.uniform((50, 50, 30), (400, 300, 200), (200, 3)):
        square = Square(x, y, side)
        near = snap_to_pixels(square)
        margin = pixel_box(square.scaled(MARGIN))
        assert pixel_box(near.scaled(MARGIN)) == margin == pixel_box(snap_to_pixels(near).scaled(MARGIN))
        assert near.x - near.side * MARGIN / 2 == pytest.approx(margin[0] - 0.5)
        assert max(abs(near.x - x), abs(near.y - y)) <= 1 and abs(near.side - side) <= 0.5 / MARGIN


def test_a_shard_without_the_square_is_seen_in_the_middle(shards):
    assert stored_square(None, None, 176, 176) == square_from_size(176, 176)
    assert stored_square(None, [1.0, 2.0, 3.0], 176, 176) == Square(1, 2, 3)
    assert stored_square([[0, 0], [10, 0]], [1.0, 2.0, 3.0], 176, 176).side == 32
    sample = SplitReader(shards, "test").read(0)
    assert sample.landmarks is not None and sample.square == square_from_landmarks(sample.landmarks)
