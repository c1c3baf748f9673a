"""Faces that the tests of faces share; each is drawn once."""

from functools import cache

import numpy as np

from collagan_dist.faces.render import draw_face
from collagan_dist.faces.sampling import sample_traits
from collagan_dist.faces.traits import Traits

SEED = 7


FACES = range(1, 61)
FACE, LEFT_EYE, RIGHT_EYE, UPPER_LIP, LOWER_LIP, HAIR = 1, 4, 5, 7, 9, 10


@cache
def face(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return draw_face(SEED, number)


@cache
def traits(number: int) -> Traits:
    return sample_traits(SEED, number)


def centroid(labels: np.ndarray, value: int) -> np.ndarray:
    rows, columns = np.nonzero(labels == value)
    return np.array([columns.mean(), rows.mean()])


def bare(number: int) -> bool:
    """Whether neither hair nor glasses can cover an eye."""
    return traits(number).glasses is None and "fringe" not in traits(number).hair.style
