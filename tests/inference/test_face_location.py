import numpy as np
import pytest
import torch
from skimage.data import astronaut

from collagan_dist.data.face_square import pixel_box, points_to_crop, square_from_landmarks
from collagan_dist.errors import DataError
from collagan_dist.inference.face_location import (
    FaceWindow,
    GivenFaces,
    grow_to,
    hole_box,
    locate_faces,
    lost_detail,
    to_picture,
)
from collagan_dist.inference.face_model import FaceModel, load_face_model
from collagan_dist.inference.hole_source import Photograph
from collagan_dist.runs.model_folder import read_config

POINTS = [[180, 210], [250, 208], [215, 245], [188, 285], [244, 284]]


class SeesOneFace:
    """A model of 64 pixels that knows where the face is: its landmarks in any window, where it is sure if all are inside."""

    size, finds_landmarks = 64, True

    def __init__(self, points=POINTS):
        self.points, self.looked = np.array(points, float), []

    def face_square(self, points):
        return square_from_landmarks(points)

    def scale_square(self, square):
        return square

    def find_landmarks(self, faces, holes, names):
        # The picture's pixels hold their own coordinates, so a crop says where it is from.
        found, sure = [], []
        for face in faces.astype(float):
            left, right = face[32, 0, 0], face[32, -1, 0]
            top, bottom = face[0, 32, 1], face[-1, 32, 1]
            pixels = (self.points / 2 - (left, top)) / (right - left, bottom - top) * 63
            inside = (pixels > 0).all() and (pixels < 63).all()
            found.append(pixels.clip(0, 63))
            sure.append(1.0 if inside else -1.0)
        self.looked.append(len(faces))
        return np.array(found), np.array(sure)


def photograph(hole=None, shape=(450, 500)):
    rows, columns = np.mgrid[: shape[0], : shape[1]] // 2
    pixels = np.stack([columns, rows, rows], -1).astype(np.uint8)
    return Photograph("photo", pixels, None, hole)


def overlap(one, other):
    sides = [max(0, min(one[a] + one[2], other[a] + other[2]) - max(one[a], other[a])) for a in (0, 1)]
    area = sides[0] * sides[1]
    return area / (one[2] ** 2 + other[2] ** 2 - area)


def test_the_models_landmarks_give_the_square_in_two_passes():
    model = SeesOneFace()
    hole = np.zeros((450, 500), bool)
    hole[230:300, 180:250] = True
    found = locate_faces(model, [photograph(), photograph(hole)], GivenFaces())
    for (face,) in found:
        assert face.found_by == "by the model's landmarks" and not face.note
        assert overlap(face.window, pixel_box(square_from_landmarks(POINTS))) > 0.9
    assert len(model.looked) == 2


def test_what_is_no_face_falls_back_to_the_hole_or_the_middle():
    upside_down = [POINTS[i] for i in (3, 4, 2, 0, 1)]
    hole = np.zeros((450, 500), bool)
    hole[10:60, 400:440] = True
    (middle,), (around,) = locate_faces(SeesOneFace(upside_down), [photograph(), photograph(hole)], GivenFaces())
    assert (middle.window, middle.found_by) == ((25, 0, 450), "in the middle")
    assert (around.window, around.found_by) == ((370, 0, 100), "around the hole")


class NeverSure(SeesOneFace):
    def find_landmarks(self, faces, holes, names):
        points, sure = super().find_landmarks(faces, holes, names)
        return points, np.full_like(sure, -0.9)


class AlwaysInTheCorner(SeesOneFace):
    """A model that is sure of a small face in the corner of whatever it sees."""

    def find_landmarks(self, faces, holes, names):
        points = np.array([[2, 2], [12, 2], [7, 7], [3, 12], [11, 12]], float)
        return np.stack([points] * len(faces)), np.ones(len(faces))


@pytest.mark.parametrize("model", [NeverSure(), AlwaysInTheCorner()])
def test_looks_that_are_not_sure_or_do_not_agree_are_no_face(model):
    ((face,),) = locate_faces(model, [photograph()], GivenFaces())
    assert face.found_by == "in the middle"


def test_given_squares_and_landmarks_come_first():
    model = SeesOneFace()
    ((face,),) = locate_faces(model, [photograph()], GivenFaces([(30, -40, 200)]))
    assert face.window == (30, -40, 200)
    ((face,),) = locate_faces(model, [photograph()], GivenFaces(landmarks={"photo": POINTS}))
    assert face.window == pixel_box(square_from_landmarks(POINTS)) and not model.looked
    (error,) = locate_faces(model, [photograph()], GivenFaces([(3000, 0, 20)]))
    assert isinstance(error, DataError) and "photo: its face square lies" in str(error)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((120, 120, 160, 160), (100, 100, 100)),  # inside with its margin of an eighth
        ((100, 120, 140, 160), (95, 100, 100)),  # moved
        ((0, 120, 40, 160), (0, 100, 100)),  # at the picture's border nothing is left of it
        ((90, 100, 250, 180), (70, 50, 200)),  # grown around its middle, then moved
        ((0, 0, 500, 450), (0, -50, 500)),  # all of the picture
    ],
)
def test_the_square_contains_the_hole(box, expected):
    window = grow_to((100, 100, 100), box, (450, 500))
    left, top, side = window
    assert left <= box[0] and top <= box[1] and left + side >= box[2] and top + side >= box[3]
    assert window == expected


def test_a_change_of_the_square_is_said():
    hole = np.zeros((450, 500), bool)
    hole[:, 100:200] = True
    ((face,),) = locate_faces(SeesOneFace(), [photograph(hole)], GivenFaces([(100, 100, 200)]))
    assert face.note == "its face square was grown from 200 to 450 pixels to contain the hole"


def test_a_picture_of_the_models_size_is_taken_as_it_is(trained_run):
    model, _ = load_face_model(trained_run, read_config(trained_run))
    hole = np.ones((32, 32), bool)
    (face,), (other,) = locate_faces(
        model, [Photograph("a", np.zeros((32, 32, 3), np.uint8), None, hole), photograph(hole=None)], GivenFaces()
    )
    assert face.window == (0, 0, 32) and not face.note and other.window != (0, 0, 32)


def test_the_square_is_the_one_that_the_model_was_trained_on(trained_run):
    config = read_config(trained_run)
    wide = config.model_copy(update={"data": config.data.model_copy(update={"face_square": 4.0})})
    model = FaceModel(wide, None, torch.device("cpu"))
    ((face,),) = locate_faces(model, [photograph()], GivenFaces(landmarks={"photo": POINTS}))
    assert face.window == pixel_box(square_from_landmarks(POINTS).scaled(4 / 3.2))


def test_points_go_back_to_the_picture():
    window = (40, -30, 200)
    there = points_to_crop(POINTS, *window, 64)
    np.testing.assert_allclose(to_picture(np.array(there), window, 64), POINTS, atol=0.01)
    assert hole_box(np.zeros((3, 3), bool)) is None and hole_box(np.eye(3, dtype=bool)) == (0, 0, 3, 3)


@pytest.mark.parametrize(
    ("square", "said"),
    [((420, 180, 60), "lies beside the picture"), ((-16_000, -16_000, 39_000), "is too large")],
)
def test_squares_that_cannot_be_cut_are_errors_of_their_picture(square, said):
    """And not of the command: other pictures of the batch are completed."""
    photos = [Photograph("a", np.zeros((600, 400, 3), np.uint8), None, None), photograph(shape=(9_000, 9_000))]
    (first, second) = locate_faces(SeesOneFace(), photos, GivenFaces([square]))
    wrong = first if said.startswith("lies") else second
    assert isinstance(wrong, DataError) and said in str(wrong) and wrong is not (second if wrong is first else first)


def test_a_hole_across_a_panorama_is_refused_before_its_square_is_made():
    hole = np.zeros((40, 20_000), bool)
    hole[30:35] = True
    (found,) = locate_faces(
        SeesOneFace(), [Photograph("p", np.zeros((40, 20_000, 3), np.uint8), None, hole)], GivenFaces()
    )
    assert isinstance(found, DataError) and "complete a smaller part" in str(found)


def test_what_is_said_of_windows():
    assert str(FaceWindow((3, 4, 50), "as given")) == "face square of 50 pixels at 3,4: as given"
    assert lost_detail([32], 32) == lost_detail([20, 32], 32) == ""
    scale = "pixels of the picture for one of the model"
    assert lost_detail([80], 32) == f"face square of 80 pixels completed at 32: 2.5 {scale}"
    assert lost_detail([80, 20], 32) == f"face squares of 20 to 80 pixels completed at 32: up to 2.5 {scale}"


def two_faces(hole=None):
    """A face at (225, 128) and its mirror image at (798, 128), each with a square of about 125 pixels."""
    return Photograph("two", np.concatenate([astronaut(), astronaut()[:, ::-1]], 1), None, hole)


def hole_of(*boxes):
    hole = np.zeros((512, 1024), bool)
    for left, top, right, bottom in boxes:
        hole[top:bottom, left:right] = True
    return hole


def sides(faces):
    return {"left" if face.window[0] + face.window[2] / 2 < 512 else "right" for face in faces}


def test_all_faces_are_found_and_those_that_a_hole_touches_completed():
    (faces,) = locate_faces(SeesOneFace(), [two_faces()], GivenFaces())
    assert len(faces) == 2 and sides(faces) == {"left", "right"}
    assert {face.found_by for face in faces} == {"by the detector"}
    for box, side in (((210, 140, 240, 150), "left"), ((790, 140, 830, 150), "right")):
        (faces,) = locate_faces(SeesOneFace(), [two_faces(hole_of(box))], GivenFaces())
        assert sides(faces) == {side} and len(faces) == 1 and faces[0].part is None


@pytest.mark.parametrize(
    "hole",
    [
        hole_of((210, 140, 240, 150), (790, 140, 830, 150)),
        hole_of((200, 140, 840, 150)),  # one hole across both
        hole_of(
            (210, 140, 240, 150), (790, 140, 830, 150), (10, 400, 60, 440), (500, 300, 530, 310)
        ),  # and beside both
    ],
)
def test_faces_share_a_hole_without_rest(hole):
    """Every pixel of the hole is in one face's part, and the face's window contains its part."""
    (faces,) = locate_faces(SeesOneFace(), [two_faces(hole)], GivenFaces([(163, 66, 125), (736, 66, 125)]))
    assert sides(faces) == {"left", "right"}
    count = np.zeros(hole.shape, int)
    for face in faces:
        (left, top, right, bottom), (x, y, side) = face.part.box, face.window
        count[top:bottom, left:right] += face.part.hole_HW
        assert x <= left and y <= top and right <= x + side and bottom <= y + side
    np.testing.assert_array_equal(count, hole)
    # The middle between both squares is at x = 511.5.
    assert faces[0].part.box[2] <= 512 <= faces[1].part.box[0]


def test_a_hole_beside_all_given_squares_moves_the_nearest():
    given = GivenFaces([(163, 66, 125), (736, 66, 125)])
    (faces,) = locate_faces(SeesOneFace(), [two_faces(hole_of((900, 300, 920, 320)))], given)
    assert sides(faces) == {"right"} and faces[0].note == "its face square was moved to contain the hole"
    for hole in (None, hole_of()):  # an empty hole touches no face and leaves none out
        (faces,) = locate_faces(SeesOneFace(), [two_faces(hole)], given)
        assert [face.window for face in faces] == [(163, 66, 125), (736, 66, 125)]
