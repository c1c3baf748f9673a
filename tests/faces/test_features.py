"""Labels and landmarks of eyes, nose, mouth and glasses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from collagan_dist.faces.render import draw_traits
from collagan_dist.types import CLASSES, LANDMARKS
from tests.faces.drawn import (
    FACE,
    FACES,
    LEFT_EYE,
    LOWER_LIP,
    RIGHT_EYE,
    UPPER_LIP,
    bare,
    centroid,
    face,
    traits,
)


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


def test_frames_of_glasses_are_face_and_lenses_change_nothing() -> None:
    wearers = [number for number in range(1, 121) if traits(number).glasses is not None]
    assert len(wearers) >= 5
    for number in wearers:
        without = draw_traits(replace(traits(number), glasses=None))[1]
        labels = draw_traits(traits(number))[1]
        # Hair that hangs over a frame stays hair, so whatever the glasses changed is face.
        assert (labels[labels != without] == FACE).all(), number
        assert (labels == LEFT_EYE).any() and (labels == RIGHT_EYE).any(), number
