import pytest

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import load_config, to_yaml, validate_config
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
        *(
            (f"schedule.adv_from={value}", r"schedule.adv_from: needs a step .* or a share of the steps")
            for value in ("1.0", "1.5", "-1", "-0.5", "true", "abc", "null")
        ),
        ("model.name=ce", "model.name: ce has the one task inpainting"),
        ("evaluate.size=64", "evaluate.size: this model completes pictures of 128 pixels only"),
        ("evaluate.fixed.O7=[0, 0, 40, 10]", "evaluate.fixed: needs a box for each of O1"),
        ("loss.weights.colours={adv: 1, rec: 1}", "loss.weights.colours: the model has no such task"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(item, message):
    with pytest.raises(ConfigError, match=message):
        load_config("paper", None, [item])


@pytest.mark.parametrize(
    ("given", "steps", "start"),
    [
        ("0", 10, 0), ("1500", 1600, 1500), ("1500", 10, 1500),
        ("0.9375", 1600, 1500), ("0.29", 100, 29), ("0.0", 10, 0), ("0.9375", 3, 2), ("0.9999999999", 10, 9), ("0.5", 1, 0),
    ],
)  # fmt: skip
def test_the_first_adversarial_step(given, steps, start):
    """A share of the steps never makes a run that is no GAN, however short; it stays a share in the run folder."""
    config = load_config("demo", sets=[f"schedule.adv_from={given}"])
    assert config.schedule.adversarial_start(steps) == start
    again = validate_config(strict_yaml.load(to_yaml(config), "config.yaml")[0], "config.yaml")
    assert again == config and type(again.schedule.adv_from) is type(config.schedule.adv_from)


def test_a_shortened_demo_is_a_gan():
    assert load_config("demo").schedule.adversarial_start(1600) == 1500
    assert all(load_config("demo").schedule.adversarial_start(steps) < steps for steps in range(1, 200))
