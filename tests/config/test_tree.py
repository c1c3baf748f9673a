import pytest

from collagan_dist.config.load import load_config
from collagan_dist.config.strict_yaml import Section
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError


def test_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


def test_every_key_is_documented():
    def check(section, path):
        assert section.__doc__, path
        for name, field in section.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                check(kind, f"{path}{name}.")
            else:
                assert field.description, f"{path}{name}"

    check(Config, "")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("runtime.zero_stage=3", "runtime.zero_stage: 3 shards the parameters"),
        ("runtime.zero_stage=1", "runtime.zero_stage: 1 is DeepSpeed's; set engine to deepspeed"),
        ("model.tasks=[inpainting, inpainting]", "model.tasks: needs at least one task, each at most once"),
        ("model.tasks=[colours]", "model.tasks: there is no task 'colours'; choose from inpainting"),
        ("schedule.batch=1.5", "schedule.batch"),
        ("model.name=ce", "model.name: ce has the one task inpainting"),
        ("evaluate.size=64", "evaluate.size: this model completes pictures of 128 pixels only"),
        ("evaluate.fixed.O7=[0, 0, 40, 10]", "evaluate.fixed: needs a box for each of O1"),
        ("loss.weights.colours={adv: 1, rec: 1}", "loss.weights.colours: the model has no such task"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(item, message):
    with pytest.raises(ConfigError, match=message):
        load_config("paper", None, [item])
