import json
import random
import re

import pytest

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import load_config, to_yaml, validate_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from tests.faults.damages import DAMAGES, rounds
from tests.faults.mutations import mutated_tree


def test_a_number_is_a_number():
    text = "[1e-4, 1.5, 3, on, '1', null]"
    assert strict_yaml.load(text, "x", scalar=True)[0] == [1e-4, 1.5, 3, "on", "1", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "x:1: YAML anchors"),
        ("a: &a [*a]", "x:1: YAML anchors"),
        ("a: !!str 1", "x:1: YAML tags"),
        ("a: !x 1", "x:1: YAML tags"),
        ("a: 1\nb: 2\na: 3", "x:3: key a is given twice"),
        ("a:\n  b: .nan", "x:2: .nan is not a finite number"),
        ("a: 1e999", "x:1: 1e999 is not a finite number"),
        ("a: [1", "x:1: not YAML"),
        ('a: "b\\0c"', "x:1: a NUL is part of no name"),
        ("- 1", "x: must be a mapping"),
    ],
)
def test_errors_name_the_line(text, message):
    with pytest.raises(ConfigError, match=message):
        strict_yaml.load(text, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log:\n  evry: 3", r"x:2: unknown key log.evry; did you mean every\?"),
        ("seed: 1\nlr: 3", r"x:2: unknown key lr; did you mean optim.generator.lr\?"),
        ("log: {qqq: 3}", "x:1: unknown key log.qqq; valid here: every, grid_every, sinks"),
        ("loss:\n  weights:\n    landmarks: {advv: 1, rec: 2}", r"x:3: unknown key .*did you mean adv\?"),
        ("schedule:\n  batch: '8'", r"x:2: schedule.batch: needs an integer, is '8'"),
        ("optim:\n  generator:\n    betas: [0.5, 2.0]", r"x:3: optim.generator.betas.1: needs at most 1, is 2.0"),
    ],
)
def test_errors_of_sections_name_the_line_and_the_nearest_key(text, message):
    tree, lines = strict_yaml.load(text, "x")
    with pytest.raises(ConfigError, match=message):
        strict_yaml.validate(Config, tree, "x", lines)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: cannot read the recipe .*; look in shards/"):
        strict_yaml.read_text(tmp_path / "none.yaml", "recipe", "look in shards/")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not text"):
        strict_yaml.read_text(tmp_path / "bytes.yaml", "recipe", "")


def test_names_of_any_bytes_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"preset demo: 'a/d\\udcff'… is not UTF-8"):
        load_config("demo", shards="a/d\udcff")


def test_assignments():
    assert strict_yaml.parse_assignment("a.b= [1, x]") == (("a", "b"), [1, "x"])
    for item in ("a", "=1"):
        with pytest.raises(ConfigError, match="must read key=value"):
            strict_yaml.parse_assignment(item)


def test_texts_stay_texts():
    """Also those that PyYAML would write without quotes, and `load` take for numbers or constants."""
    texts = [
        "08",
        "1e5",
        "1e-4",
        "5E+3",
        "nUll",
        "tRue",
        "~",
        "",
        "0x1f",
        "1_000",
        ".inf",
        ".NaN",
        "yes",
        "on",
        "1:30",
        "a: b",
        "ü\n",
    ]
    tree = {"texts": texts, "numbers": [8, 1e5, 1e-4, None, True]}
    assert strict_yaml.load(strict_yaml.dump(tree), "a.yaml")[0] == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 20_000, "a.yaml:1: is nested more than 64 deep"),
        ("- " * 20_000, "a.yaml: is nested more than 32 deep"),
        ("{a: " * 20_000, "a.yaml:1: is nested more than 64 deep"),
        ("a: " + "9" * 5000, "a.yaml:1: a number of 5000 digits is too long"),
        ("a: 1\n" * 100_000, "characters, more than"),
        (r'a: "\UFFFFFFFF"', "a.yaml: not YAML"),
        ("%YAML 1" + "1" * 5000 + ".1\n---\na: 1", "a.yaml: not YAML"),
    ],
)
def test_files_made_to_harm(text, said):
    """20 kB of brackets took the parser 90 seconds."""
    with pytest.raises(ConfigError, match=re.escape(said)):
        strict_yaml.load(text, "a.yaml")


@rounds(300, 10_000)
def test_mutated_configurations(rounds):
    content = to_yaml(load_config("demo")).encode()
    for number in range(rounds):
        at, changed = random.Random(number), bytearray(content)
        if number % 3 == 0:
            tree = mutated_tree(strict_yaml.load(content.decode(), "a.yaml")[0], at)
            changed = bytearray(json.dumps(tree).encode())  # JSON is YAML
        else:
            at.choice(DAMAGES)(changed, at)
        try:
            tree, lines = strict_yaml.load(bytes(changed).decode("utf-8", "replace"), "a.yaml")
            validate_config(tree, "a.yaml", lines)
        except ConfigError as error:
            assert "a.yaml" in str(error), number
