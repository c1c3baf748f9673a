import pytest

from collagan_dist.config.load import load_config
from collagan_dist.config.models import MODELS
from collagan_dist.models.discriminator import Discriminators
from collagan_dist.tasks import build_tasks


@pytest.mark.parametrize("model", MODELS)
def test_a_task_that_is_off_leaves_nothing(model):
    tasks = build_tasks(load_config("stable", model))
    letters = {"i": "inpainting", "s": "segmentation", "d": "landmarks"}
    expected = [letters[c] for c in model.split("_")[1]]
    assert list(tasks) == expected
    assert [t.channels for t in tasks.values()] == [
        {"inpainting": 3, "segmentation": 11, "landmarks": 5}[t] for t in expected
    ]
    assert set(Discriminators({n: t.channels for n, t in tasks.items()}, 4).of) == set(expected)
