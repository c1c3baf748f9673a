import fnmatch
import json
import re
import tomllib
from importlib import resources

import pytest

from collagan_dist.config import reference, strict_yaml
from collagan_dist.config.load import config_to_dict, get_nested, load_config, preset_names, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from tests.conftest import ROOT

PRESETS = resources.files("collagan_dist.presets")
SCHEMA = "config.schema.json"
KEYS = {key.path: key for key in reference.all_keys()}


def test_the_committed_page_and_schema_are_what_is_generated():
    """`make reference` writes both."""
    assert (ROOT / "docs/configuration.md").read_text() == reference.reference_page()
    assert PRESETS.joinpath(SCHEMA).read_text() == json.dumps(reference.schema(), indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", preset_names())
def test_editors_find_the_schema_of_a_preset(name):
    first = PRESETS.joinpath(f"{name}.yaml").read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={SCHEMA}"


@pytest.mark.parametrize("name", preset_names())
def test_the_schema_accepts_presets_and_finds_mistakes(name):
    jsonschema = pytest.importorskip("jsonschema")
    checker = jsonschema.Draft202012Validator(reference.schema())
    tree = strict_yaml.load(PRESETS.joinpath(f"{name}.yaml").read_text(), name)[0]
    assert [error.message for error in checker.iter_errors(tree)] == []
    wrong = [{"schedul": {}}, {"schedule": {"adv_from": 1.5}}, {"schedule": {"steps": "5"}}, {"loss": {"adv": "wgan"}}]
    assert not any(map(checker.is_valid, wrong)) and checker.is_valid({"loss": {"weights": {"inpainting": {"adv": 1}}}})


def test_the_schema_is_part_of_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert any(fnmatch.fnmatch(f"presets/{SCHEMA}", pattern) for pattern in settings["collagan_dist"])


def test_every_key_is_on_the_page_with_its_meaning():
    leaves = [key for key in KEYS.values() if not key.is_section]
    page = reference.reference_page()
    assert len(leaves) > 90 and all(key.meaning for key in KEYS.values())
    for key in leaves:
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{key.path}` | ")]
        assert len(re.findall(r"(?<!\\)\|", row)) == 5, row
    # Those of the tree: no section of it is lost on the way through JSON.
    assert {key.path for key in leaves if reference.ANY_NAME not in key.path} >= set(strict_yaml.leaf_keys(Config)) - {
        "loss.weights"
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("schedule.adv_from", "integer from 0 on, or number from 0 to below 1"),
        ("schedule.steps", "integer from 1 on, or null"),
        ("optim.generator.lr", "number above 0"),
        ("optim.generator.betas", "list of 2: number from 0 to 1 each"),
        ("model.patch", "one of 94, 70"),
        ("runtime.compile", "one of false, true, step"),
        ("data.window", "integer from 1 to 256"),
        ("deterministic", "true or false"),
        ("model.tasks", "list of text"),
        ("evaluate.fixed", "mapping of names to list of 4: integer from 0 on, integer from 1 on"),
        ("loss.weights.<task>.adv", "number from 0 on"),
        ("model.gfc.parser", "text, or null"),
    ],
)
def test_types_in_words(path, kind):
    assert KEYS[path].kind == kind


def test_defaults_are_those_of_the_tree():
    tree = config_to_dict(Config())
    for key in KEYS.values():
        if not key.is_section and reference.ANY_NAME not in key.path:
            assert get_nested(tree, *key.path.split(".")) == key.default, key.path


@pytest.mark.parametrize("name", preset_names())
def test_the_printed_configuration_is_the_same_one(name):
    config = load_config(name)
    text = reference.commented_yaml(config, name)
    assert validate_config(strict_yaml.load(text, name)[0], name) == config


def test_a_comment_marks_what_differs_from_the_default():
    lines = reference.commented_yaml(load_config("demo"), "demo").splitlines()
    marked = {line.split(":")[0].strip(): line.rpartition("# default: ")[2] for line in lines if "# default: " in line}
    assert marked["image_size"] == "128" and marked["adv_from"] == "0" and "split" not in marked
    # The λ of another number of tasks are its defaults.
    defaults = reference.commented_yaml(load_config("stable", model="M_s"), "stable")
    assert "  tasks: [segmentation]  # default: [inpainting, segmentation, landmarks]" in defaults
    assert "      rec: 1000.0\n" in defaults and "# default: 1000" not in defaults
    long = ["a b " * 60, "'", "#", "a: b", "1e5", "ü", ""]
    assert strict_yaml.load(f"x: {reference.inline(long)}", "x")[0] == {"x": long}


def test_an_explanation():
    text = reference.explain("schedule.adv_from", load_config("demo"), "demo")
    assert "\n  type: integer from 0 on, or number from 0 to below 1\n  default: 0\n  demo: 0.9375\n" in text
    assert "a share of the run's steps" in " ".join(text.split()) and "section schedule: How long a run is." in text
    assert "  paper: 0.8" in reference.explain("loss.weights.inpainting.adv", load_config("paper"), "paper")
    section = reference.explain("optim", None, "")
    assert [line.split()[0] for line in section.splitlines()[3:]] == [
        "optim.generator",
        "optim.discriminators",
        "optim.ema",
    ]
    assert "loss.weights.<task>.adv" in reference.explain("loss.weights", None, "")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("schedul.steps", "schedule.steps"),
        ("batch", "schedule.batch"),
        ("optim.generator.lrr", "optim.generator.lr"),
        ("zz", "--explain schedule"),
    ],
)
def test_a_key_that_does_not_exist(key, near):
    with pytest.raises(ConfigError, match=f"--explain {key}: there is no such key; .*{near}"):
        reference.explain(key, None, "")
