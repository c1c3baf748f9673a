from collagan_dist.faces.traits import blend, brighten


def test_colours_are_mixed_and_lit():
    assert blend((0, 100, 200), (100, 0, 200), 0.25) == (25, 75, 200)
    assert brighten((100, 200, 50), 1.5) == (150, 255, 75) and brighten((100, 200, 50), 0.5) == (50, 100, 25)
