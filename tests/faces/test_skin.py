from dataclasses import replace

import numpy as np

from collagan_dist.faces.render import draw_traits
from tests.faces.drawn import FACE, traits


def test_the_picture_is_brighter_on_the_side_of_the_light():
    person = replace(traits(1), glasses=None, beard=0.0, moustache=0.0)
    means = []
    for x in (-0.7, 0.7):
        picture, labels, points = draw_traits(
            replace(person, scene=replace(person.scene, light=(x, -0.2), contrast=0.6))
        )
        skin, columns = labels == FACE, np.arange(picture.shape[1])[None, :]
        means.append([picture[skin & side].mean() for side in (columns < points[2, 0], columns > points[2, 0])])
    assert means[0][0] > means[1][0] and means[0][1] < means[1][1]
