import pytest

from collagan_dist.config import effects
from collagan_dist.config.load import config_to_dict, get_nested, load_config, preset_names
from collagan_dist.config.models import CONTROLS, MODELS, PEERS

STEPS = 100


@pytest.mark.parametrize("model", [*MODELS, *CONTROLS, *PEERS])
def test_keys_without_effect_are_keys(model):
    """A key that is renamed must not stay here under its old name; and each has a reason."""
    sets = [] if model in ("GFC", "SII") else ["schedule.adv_from=100"]
    config = load_config("stable", model, [*sets, "hole.kind=block" if model == "GFC" else "hole.kind=none"])
    tree, idle = config_to_dict(config), effects.keys_without_effect(config, STEPS)
    missing = object()
    for key, reason in idle.items():
        *sections, name = key.split(".")
        assert get_nested(tree, *sections).get(name, missing) is not missing and reason, key


@pytest.mark.parametrize(
    ("preset", "sets", "said"),
    [
        ("demo", ["schedule.steps=40", "schedule.adv_from=40"], "schedule.adv_from: the adversarial loss would begin at step 40, and"),
        ("demo", ["schedule.steps=40", "schedule.adv_from=39"], None),
        ("demo", ["schedule.steps=2"], None),
        ("ce", ["schedule.steps=40", "schedule.adv_from=40"], "schedule.adv_from: the adversarial loss would begin"),
        ("sii", ["schedule.steps=40", "schedule.adv_from=40"], None),
        ("gfc", ["schedule.steps=40", "schedule.adv_from=40"], None),
    ],
)  # fmt: skip
def test_a_run_that_is_no_gan(preset, sets, said):
    found = effects.warnings_of(
        load_config(preset, sets=sets), 40 if said or preset != "demo" else int(sets[0].rpartition("=")[2])
    )
    assert [text.startswith(said) for text in found] == [True] if said else found == []


@pytest.mark.parametrize("name", preset_names())
def test_presets_have_no_warning(name):
    assert effects.warnings_of(load_config(name), 1600) == []


@pytest.mark.parametrize(
    ("model", "item", "reason"),
    [
        ("M_i", "model.heatmap_sigma=4", "the model has no task landmarks"),
        ("M_s", "model.concentrated=true", "the model has no task inpainting"),
        ("M_isd", "model.sii.z=5", "model.name is collagan"),
        ("SII", "loss.weights.inpainting.rec=5", "SII has no reconstruction loss"),
        ("GFC", "schedule.adv_from=5", "GFC decides itself when its adversarial loss begins"),
        ("M_isd", "schedule.epochs=3", "schedule.steps is 100 and takes precedence"),
        ("M_isd", "optim.generator.decay_to=0.1", "optim.generator.decay_from is 1, so the learning rate never falls"),
        (
            "M_i",
            "loss.inpainting_over=hole",
            "only the inpainting-concentrated scheme (model.concentrated) with holes reads it",
        ),
        ("M*_i", "loss.inpainting_over=hole", None),
        ("M*_i", "loss.l2=norm", "the model has neither segmentation nor landmarks"),
        ("M_id", "loss.l2=norm", None),
        ("M_isd", "optim.generator.lr=0.1", None),
        ("M_isd", "loss.weights.inpainting.adv=0.1", None),
    ],
)
def test_a_key_that_was_given_without_effect_is_named(model, item, reason):
    key = item.partition("=")[0]
    found = effects.warnings_of(load_config("stable", model, ["schedule.steps=100", item]), STEPS, [key])
    assert found == ([f"{key}: has no effect: {reason}"] if reason else [])
