"""Configuration: what wins, what is kept, what it means to be the same run."""

from __future__ import annotations

from pathlib import Path

import pytest

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import (
    differences,
    identity_hash,
    identity_keys,
    load_config,
    model_label,
    preset_names,
    to_yaml,
    validate_config,
)
from collagan_dist.config.models import MODELS
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError


def test_defaults_then_file_then_model_then_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {tasks: [inpainting], concentrated: true}\nschedule: {batch: 8, epochs: 3}\n")
    loaded = load_config(str(path), "M_id", ["schedule.batch=16", "optim.generator.lr=1e-3"], "somewhere")
    assert loaded.schedule.batch == 16 and loaded.schedule.epochs == 3 and loaded.seed == 0
    assert loaded.model.tasks == ("inpainting", "landmarks") and not loaded.model.concentrated
    assert loaded.optim.generator.lr == 1e-3 and loaded.data.shards == "somewhere"


def test_what_is_written_is_read_back_equal() -> None:
    for name in preset_names():
        loaded = load_config(name)
        tree, _ = strict_yaml.load(to_yaml(loaded), "text")
        assert validate_config(tree, "text") == loaded


def test_a_presets_weights_follow_the_model() -> None:
    assert load_config("demo", "M_i").loss.weights.keys() == {"inpainting"}


def test_a_number_is_a_number() -> None:
    assert strict_yaml.load("a: 1e-4\nb: 1.5\nc: 3\nd: on\ne: '1'\nf: null", "x")[0] == {
        "a": 1e-4, "b": 1.5, "c": 3, "d": "on", "e": "1", "f": None,
    }  # fmt: skip


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("schedule.steps=7", True), ("log.every=7", True), ("log.sinks=[tensorboard]", True),
        ("checkpoint.keep=9", True), ("data.threads=4", True), ("runtime.precision=bf16", True),
        ("data.image_size=64", False), ("loss.adv=minmax", False), ("seed=4", False), ("schedule.batch=8", False),
        ("optim.generator.lr=0.5", False), ("data.augment.flip=0.0", False),
    ],
)  # fmt: skip
def test_identity_is_what_is_learned(change: str, same: bool) -> None:
    plain, changed = load_config("paper"), load_config("paper", None, [change])
    assert (identity_hash(plain) == identity_hash(changed)) is same
    assert bool(differences(identity_keys(plain), identity_keys(changed))) is not same


def test_model_names_both_ways() -> None:
    for name in MODELS:
        assert model_label(load_config("stable", name).model) == name


@pytest.mark.parametrize("text", ["a: &a [x, x]\nb: [*a, *a]\n", "a: &a [*a]", "a: !!str 1", "a: !x 1"])
def test_references_and_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x:1: YAML (anchors|tags)"):
        strict_yaml.load(text, "x")


def test_one_weight_may_be_given_alone() -> None:
    weights = load_config("stable", "M_is", ["loss.weights.inpainting.rec=30"]).loss.weights
    assert (weights["inpainting"].adv, weights["inpainting"].rec, weights["segmentation"].rec) == (0.8, 30.0, 200.0)


def test_a_bad_setting_is_blamed_on_the_command_line() -> None:
    with pytest.raises(ConfigError, match=r"^--set evaluate.noise=maybe: evaluate.noise: "):
        load_config("stable", None, ["evaluate.noise=maybe"])
    with pytest.raises(ConfigError, match=r"^--set model.widths.generater=4: unknown key .*did you mean generator"):
        load_config("stable", None, ["model.widths.generater=4"])
