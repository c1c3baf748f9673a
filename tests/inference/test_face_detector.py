import numpy as np
import pytest
from skimage.data import astronaut

from collagan_dist.data.face_square import Square
from collagan_dist.inference.face_detector import _merge, detect_faces, overlap
from collagan_dist.inference.hole_source import Photograph

# Read off the picture: eyes at (206, 108) and (243, 107), mouth at y = 150.
FACE = Square(225, 128, 125)


def photograph(pixels, hole=None):
    return Photograph("photo", np.ascontiguousarray(pixels), None, hole)


def test_a_face_is_found_where_it_is_at_any_size():
    for pixels, face in (
        (astronaut(), FACE),
        (astronaut()[:, ::-1], FACE._replace(x=511 - FACE.x)),
        (np.kron(astronaut(), np.ones((3, 3, 1), np.uint8)), Square(FACE.x * 3 + 1, FACE.y * 3 + 1, FACE.side * 3)),
    ):
        (found,) = detect_faces(photograph(pixels))
        assert overlap(found, face) > 0.6
    assert detect_faces(photograph(np.full((300, 300, 3), 90, np.uint8))) == []
    assert detect_faces(photograph(np.full((4, 3000, 3), 90, np.uint8))) == []


def test_what_is_painted_into_a_hole_is_not_seen():
    hole = np.zeros((512, 512), bool)
    hole[135:170, 190:260] = True  # the mouth
    found = []
    for colour in (0, 130, 255):
        pixels = astronaut()
        pixels[hole] = colour
        found.append(detect_faces(photograph(pixels, hole)))
    assert found[0] == found[1] == found[2] and overlap(found[0][0], FACE) > 0.6


def test_squares_of_one_face_are_one():
    big, near, inside, other = Square(50, 50, 40), Square(52, 50, 40), Square(55, 60, 9), Square(120, 50, 30)
    badge = Square(200, 50, 15)
    assert _merge([inside, badge, other, near, big]) == [Square(51, 50, 40), other]
    # The largest is the one whose mean is, whatever its largest box.
    assert _merge([Square(50, 50, 100), Square(50, 50, 64), Square(300, 50, 90)]) == [
        Square(300, 50, 90), Square(50, 50, 82)
    ]  # fmt: skip
    assert overlap(big, other) == 0 and overlap(big, big) == 1
    assert overlap(Square(0, 0, 2), Square(1, 0, 2)) == pytest.approx(1 / 3)
