from dataclasses import replace

import numpy as np

from collagan_dist.faces.render import draw_traits
from collagan_dist.types import CLASSES
from tests.faces.drawn import FACE, FACES, LEFT_EYE, LOWER_LIP, RIGHT_EYE, UPPER_LIP, bare, centroid, face, traits


def test_eye_landmarks_are_the_middles_of_the_eyes():
    for number in filter(bare, FACES):
        _, labels, points = face(number)
        for index, value in ((0, LEFT_EYE), (1, RIGHT_EYE)):
            assert np.linalg.norm(centroid(labels, value) - points[index]) < 1.5, number
            x, y = np.rint(points[index]).astype(int)
            assert labels[y, x] == value, number


def test_landmarks_lie_on_nose_and_ends_of_lips_and_open_mouths_show_teeth():
    for number in FACES:
        _, labels, points = face(number)
        assert (labels == CLASSES.index("teeth")).any() == (traits(number).mouth.gap > 0), number
        x, y = np.rint(points[2]).astype(int)
        assert labels[y, x] == CLASSES.index("nose"), number
        rows, columns = np.nonzero((labels == UPPER_LIP) | (labels == LOWER_LIP))
        axis = (points[4] - points[3]) / np.linalg.norm(points[4] - points[3])
        reach = np.column_stack([columns, rows]) @ axis
        np.testing.assert_allclose((reach.min(), reach.max()), points[3:] @ axis, rtol=0, atol=2)


def test_both_eyes_of_a_face_match():
    """Mean colours of the two eyes of one face are closer than those of eyes of different faces."""
    means = np.array(
        [[face(n)[0][face(n)[1] == value].mean(0) for value in (LEFT_EYE, RIGHT_EYE)] for n in FACES if bare(n)]
    )
    own = np.linalg.norm(means[:, 0] - means[:, 1], axis=1)
    other = np.linalg.norm(means[:, 0] - np.roll(means[:, 1], 1, axis=0), axis=1)
    assert np.median(own) < 0.6 * np.median(other)


def test_frames_of_glasses_are_face_and_lenses_change_nothing():
    wearers = [number for number in range(1, 121) if traits(number).glasses is not None]
    assert len(wearers) >= 5
    for number in wearers:
        without = draw_traits(replace(traits(number), glasses=None))[1]
        labels = draw_traits(traits(number))[1]
        # Hair that hangs over a frame stays hair, so whatever the glasses changed is face.
        assert (labels[labels != without] == FACE).all(), number
        assert (labels == LEFT_EYE).any() and (labels == RIGHT_EYE).any(), number
