from dataclasses import replace

import cv2
import numpy as np

from collagan_dist.faces.render import draw_face, draw_traits
from collagan_dist.types import CLASSES
from tests.faces.drawn import FACES, HAIR, LEFT_EYE, LOWER_LIP, RIGHT_EYE, UPPER_LIP, bare, centroid, face, traits


def test_every_seed_and_number_has_a_face_of_its_own():
    pictures = [draw_face(seed, number)[0].tobytes() for seed in (1, 2, 3) for number in (1, 2, 3)]
    assert len(set(pictures)) == len(pictures)


def test_every_class_appears_and_no_other():
    seen = np.sum([np.bincount(face(number)[1].ravel(), minlength=len(CLASSES)) > 20 for number in FACES], axis=0)
    assert len(seen) == len(CLASSES) and (seen > 0).all()
    assert 15 <= seen[CLASSES.index("teeth")] <= 50, "teeth show in about half the faces"
    assert (np.delete(seen, [CLASSES.index("teeth"), CLASSES.index("hair")]) >= 45).all()


def test_left_is_left_once_the_roll_is_undone():
    for number in FACES:
        _, labels, points = face(number)
        roll = traits(number).pose.roll
        across = np.array([np.cos(roll), np.sin(roll)])
        left_eye, right_eye, _, left_mouth, right_mouth = points @ across
        assert left_eye < right_eye and left_mouth < right_mouth, number
        if bare(number):
            assert centroid(labels, LEFT_EYE) @ across < centroid(labels, RIGHT_EYE) @ across, number


def test_picture_and_labels_show_the_same_outlines():
    """What changes its colour with the paint of the lips and of the hair is what is labelled so."""
    for number in (1, 2, 3, 6, 8, 13):
        person = traits(number)
        lips = replace(person, mouth=replace(person.mouth, rgb=(20.0, 220.0, 40.0)))
        hair = replace(person, hair=replace(person.hair, rgb=(40.0, 60.0, 240.0)))
        for changed, values in ((lips, (UPPER_LIP, LOWER_LIP)), (hair, (HAIR,))):
            picture, labels, _ = draw_traits(changed)
            painted = np.abs(picture.astype(int) - face(number)[0]).max(axis=-1) > 30
            labelled = np.isin(labels, values)
            # Edges are smooth in one and hard in the other: they may differ by a pixel, and by no more.
            grown = [cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) for mask in (painted, labelled)]
            beyond = (painted & (grown[1] == 0)) | (labelled & (grown[0] == 0))
            assert beyond.sum() <= 0.02 * labelled.sum(), (number, values)
