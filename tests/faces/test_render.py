"""Picture, labels and landmarks of one face agree."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from collagan_dist.faces.render import draw_face, draw_traits
from collagan_dist.types import CLASSES
from tests.faces.drawn import (
    FACES,
    HAIR,
    LEFT_EYE,
    LOWER_LIP,
    RIGHT_EYE,
    UPPER_LIP,
    bare,
    centroid,
    face,
    traits,
)


def test_a_face_depends_on_seed_and_number_alone() -> None:
    first, second = draw_face(3, 11), draw_face(3, 11)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    pictures = [draw_face(seed, number)[0].tobytes() for seed in (1, 2, 3) for number in (1, 2, 3)]
    assert len(set(pictures)) == len(pictures)


def test_shapes_and_types() -> None:
    picture, labels, points = face(1)
    assert (picture.shape, picture.dtype) == ((440, 360, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((440, 360), np.uint8)
    assert (points.shape, points.dtype) == ((5, 2), np.float64)


def test_every_class_appears_and_no_other() -> None:
    seen = np.sum([np.bincount(face(number)[1].ravel(), minlength=len(CLASSES)) > 20 for number in FACES], axis=0)
    assert len(seen) == len(CLASSES)
    assert (seen > 0).all()
    assert 15 <= seen[CLASSES.index("teeth")] <= 50, "teeth show in about half the faces"
    assert (np.delete(seen, [CLASSES.index("teeth"), CLASSES.index("hair")]) >= 45).all()


def test_left_is_left_once_the_roll_is_undone() -> None:
    for number in FACES:
        _, labels, points = face(number)
        roll = traits(number).pose.roll
        across = np.array([np.cos(roll), np.sin(roll)])
        left_eye, right_eye, _, left_mouth, right_mouth = points @ across
        assert left_eye < right_eye and left_mouth < right_mouth, number
        if bare(number):
            assert centroid(labels, LEFT_EYE) @ across < centroid(labels, RIGHT_EYE) @ across, number


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask and its neighbours."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)


def test_picture_and_labels_show_the_same_outlines() -> None:
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
            beyond = (painted & ~grown(labelled)) | (labelled & ~grown(painted))
            assert beyond.sum() <= 0.02 * labelled.sum(), (number, values)
