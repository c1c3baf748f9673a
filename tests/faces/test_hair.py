"""Hair is in front of the face and behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from collagan_dist.faces.render import draw_traits
from tests.faces.drawn import (
    FACES,
    HAIR,
    face,
    traits,
)


def test_hair_covers_brows() -> None:
    covered = 0
    for number in FACES:
        if traits(number).hair.style in ("fringe", "long_fringe"):
            bald = draw_traits(replace(traits(number), hair=replace(traits(number).hair, style="bald")))[1]
            covered += int((face(number)[1][np.isin(bald, (2, 3))] == HAIR).sum())
    assert covered > 0


def test_the_bald_have_no_hair_and_long_hair_is_long() -> None:
    person = traits(1)
    bald = draw_traits(replace(person, hair=replace(person.hair, style="bald")))[1]
    short, long = (
        draw_traits(replace(person, hair=replace(person.hair, style=style)))[1] == HAIR for style in ("short", "long")
    )
    assert not (bald == HAIR).any() and np.nonzero(long)[0].max() > np.nonzero(short)[0].max()
