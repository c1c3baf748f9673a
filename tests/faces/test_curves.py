from itertools import pairwise

import numpy as np

from collagan_dist.faces.curves import LIP_CURVES, eye_lids, face_outline, lips, nose_outline, resample, spline
from tests.faces.drawn import traits


def test_a_smooth_curve_passes_through_its_points():
    points = np.array([(0.0, 0.0), (1.0, 2.0), (3.0, 1.0), (4.0, 4.0)])
    curve = spline(points, 5)
    assert curve.shape == (16, 2)
    np.testing.assert_allclose(curve[::5], points)


def test_points_along_a_line_keep_its_ends():
    line = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 2.0)])
    np.testing.assert_allclose(resample(line, 5), [(0, 0), (0.5, 0), (1, 0), (1, 1), (1, 2)])


def test_outlines_are_mirrored_between_left_and_right():
    head, eyes, nose = traits(1).head, traits(1).eyes[1], traits(1).nose
    outline = face_outline(head, 0.1)
    assert np.abs(outline[:, 0]).max() <= head.width and np.isclose(outline[:, 0].min(), -outline[:, 0].max())
    for left, right in zip(eye_lids(eyes, -1), eye_lids(eyes, 1), strict=True):
        np.testing.assert_allclose(left * (-1, 1), right)
    points, _ = nose_outline(nose)
    np.testing.assert_allclose(points[::-1] * (-1, 1), points, atol=1e-12)
    curves = lips(traits(1).mouth)
    assert all((curves[a][1:-1, 1] <= curves[b][1:-1, 1] + 1e-9).all() for a, b in pairwise(LIP_CURVES))
