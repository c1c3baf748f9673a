import hashlib

import numpy as np
import pytest
from scipy import stats

from collagan_dist.faces.render import draw_face
from collagan_dist.faces.sampling import UniformSequence, sample_traits
from collagan_dist.faces.traits import LIT_PARTS
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


@pytest.mark.parametrize(
    ("seed", "number", "expected"),
    [
        (0, 1, "b4e789702c4894e5"),
        (7, 5, "f7a0aa86867425d8"),
        (11, 123, "b0e88b809584ead3"),
        (31, 4, "ed1f0332cef0256c"),
    ],
)
def test_drawn_faces_stay_the_same(seed, number, expected):
    """Picture, labels and points, to the byte: data sets that people have drawn must be drawn again alike."""
    drawn = draw_face(seed, number)
    assert hashlib.sha256(b"".join(part.tobytes() for part in drawn)).hexdigest().startswith(expected)


def test_coupling_is_how_often_parts_share_a_trait():
    numbers = range(1, 801)
    shared = {}
    for coupling in (0.0, 0.3, 1.0):
        people = [sample_traits(3, number, coupling) for number in numbers]
        counts = [
            np.mean([p.eyes[-1].gaze == p.eyes[1].gaze for p in people]),
            np.mean([p.eyes[-1].iris_rgb == p.eyes[1].iris_rgb for p in people]),
            np.mean([p.brows[-1].arch == p.brows[1].arch for p in people]),
            np.mean([p.brows[-1].rgb == p.beard_rgb for p in people]),
            np.mean([1 - len(p.lights) / len(LIT_PARTS) for p in people]),
        ]
        assert np.allclose(counts, coupling, atol=0.06), counts
        upper = np.array([(p.eyes[-1].upper, p.eyes[1].upper) for p in people])
        assert np.corrcoef(upper.T)[0, 1] == pytest.approx(coupling, abs=0.12)
        shared[coupling] = people
    assert [p.head for p in shared[0.0]] == [p.head for p in shared[1.0]]
    assert [p.eyes[-1] for p in shared[0.0]] == [p.eyes[-1] for p in shared[1.0]]


def test_a_part_alone_looks_the_same_at_any_coupling():
    """Only what parts say of one another changes, not how varied a part is."""
    coupled, free = ([sample_traits(3, number, coupling) for number in range(1, 801)] for coupling in (1.0, 0.0))
    for value in (
        lambda p: p.eyes[1].upper, lambda p: p.eyes[1].gaze[0], lambda p: sum(p.eyes[1].iris_rgb), lambda p: p.eyes[1].lashes,
        lambda p: p.brows[1].thick, lambda p: sum(p.brows[1].rgb), lambda p: sum(p.brows[-1].rgb), lambda p: p.brows[1].height,
        lambda p: p.lights.get("nose", p.scene.light)[0], lambda p: p.lights.get("mouth", (0, 0, p.scene.contrast))[2],
    ):  # fmt: skip
        assert stats.ks_2samp([value(p) for p in coupled], [value(p) for p in free]).pvalue > 0.001
