import pytest

from collagan_dist.config.load import load_config, model_label
from collagan_dist.config.models import MODELS, PEERS, TASK_WEIGHTS, model_name, model_settings, paper_weights
from collagan_dist.errors import ConfigError


def test_model_names_both_ways():
    for name in (*MODELS, *PEERS):
        assert model_label(load_config("stable", name).model) == name


def test_models_that_the_paper_does_not_have(monkeypatch):
    assert model_name("collagan", ("inpainting", "brightness"), True) == "M*_i+brightness"
    assert model_name("other", ("inpainting",), True) == "other"
    assert model_name("collagan", ("segmentation",), True) == "M_s"  # nothing to concentrate on
    monkeypatch.setitem(TASK_WEIGHTS, "brightness", ((1.0, 50.0),))
    assert paper_weights("brightness", 4) == (1.0, 50.0) and paper_weights("landmarks", 4) == (0.1, 200.0)
    with pytest.raises(ConfigError, match=r"--model M_x: no such model; choose from M_i, "):
        model_settings("M_x")
