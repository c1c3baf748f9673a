import json

import pytest

from benchmarks.__main__ import FIGURES, HERE, Figure, compare


@pytest.mark.parametrize(("now", "said"), [(2.0, ""), (1.85, ""), (1.5, "worse by 33%"), (3.0, "")])
def test_a_ratio_that_fell_by_more_than_its_noise_is_told(now, said):
    assert compare(Figure("step", ("ratio",)), {"ratio": 2.0}, {"ratio": now}) == said


def test_seconds_are_compared_on_one_machine_only():
    figure = Figure("start", ("seconds",), lower_is_better=True, any_machine=False)
    assert compare(figure, {"seconds": 1.0, "cpu": "a"}, {"seconds": 2.0, "cpu": "a"}) == "worse by 100%"
    assert compare(figure, {"seconds": 1.0, "cpu": "a"}, {"seconds": 2.0, "cpu": "b"}) == "stored on a"
    assert compare(figure, {}, {"seconds": 2.0, "cpu": "b"}) == "new"


def test_every_figure_is_in_its_stored_result():
    for figure in FIGURES:
        value = json.loads((HERE / f"{figure.script}.json").read_text())
        for key in figure.path:
            value = value[key]
        assert isinstance(value, int | float), figure
