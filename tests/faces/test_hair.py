from dataclasses import replace

import numpy as np

from collagan_dist.faces.render import draw_traits
from tests.faces.drawn import FACES, HAIR, face, traits


def labels(number, style):
    return draw_traits(replace(traits(number), hair=replace(traits(number).hair, style=style)))[1]


def test_hair_covers_brows():
    number = next(n for n in FACES if traits(n).hair.style == "fringe")
    assert (face(number)[1][np.isin(labels(number, "bald"), (2, 3))] == HAIR).any()


def test_the_bald_have_no_hair_and_long_hair_is_long():
    bald, short, long = (labels(1, style) == HAIR for style in ("bald", "short", "long"))
    assert not bald.any() and np.nonzero(long)[0].max() > np.nonzero(short)[0].max()
