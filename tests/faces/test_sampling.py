import numpy as np

from collagan_dist.faces.sampling import UniformSequence
from tests.faces.drawn import traits


def test_faces_vary():
    drawn = [traits(number) for number in range(1, 61)]
    assert len({person.hair.style for person in drawn}) >= 8
    assert 2 <= sum(person.glasses is not None for person in drawn) <= 16
    brightness = [sum(person.head.skin) / 3 for person in drawn]
    assert min(brightness) < 80 and max(brightness) > 190
    assert max(abs(person.pose.roll) for person in drawn) > np.radians(12)


def test_numbers_are_within_their_ranges():
    draw = UniformSequence("test", 1)
    between, bell = [draw.uniform(2, 5) for _ in range(50)], [draw.triangular(0.5) for _ in range(30)]
    assert 2 <= min(between) < 2.5 and 4.5 < max(between) < 5
    assert max(map(abs, bell)) <= 0.5
    picks = [UniformSequence("test", n).choice(("a", "b", "c"), (1, 0, 3)) for n in range(200)]
    assert "b" not in picks and 110 < picks.count("c") < 185
