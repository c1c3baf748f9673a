import numpy as np

from collagan_dist.faces.canvas import HEIGHT, WIDTH, Canvas, fit_projection
from collagan_dist.faces.render import landmark_points
from collagan_dist.types import FACE_SQUARE, MARGIN
from tests.faces.drawn import traits


def test_the_square_around_the_stored_landmarks_lies_in_the_picture():
    extents = []
    for number in range(1, 301):
        corners = landmark_points(traits(number))
        points = np.rint(fit_projection(traits(number).pose, corners).points(corners))
        low, high = points.min(0), points.max(0)
        extent, centre = (high - low).max(), (low + high) / 2
        half = FACE_SQUARE * MARGIN * extent / 2
        assert (centre - half >= 0).all() and (centre + half <= (359, 439)).all(), number
        extents.append(extent)
    assert 59 <= min(extents) < 64 and 79 < max(extents) <= 85


def test_a_polygon_covers_the_same_pixels_in_picture_and_labels():
    canvas = Canvas.on_backdrop(np.zeros((4, 4, 3), np.uint8))
    square = np.array([(99.5, 99.5), (149.5, 99.5), (149.5, 119.5), (99.5, 119.5)])
    canvas.fill(square, (255, 255, 255), 3)
    picture, labels = canvas.downsampled()
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[101:119, 101:149] = True  # a pixel at the border may be half covered
    outside = np.ones((HEIGHT, WIDTH), bool)
    outside[99:121, 99:151] = False
    assert (picture[inside] == 255).all() and (labels[inside] == 3).all()
    assert not picture[outside].any() and not labels[outside].any()
    rows, columns = np.nonzero(labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 119, 100, 149)  # pixel centres inside
