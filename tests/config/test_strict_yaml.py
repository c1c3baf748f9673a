import pytest

from collagan_dist.config import strict_yaml
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError


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
        ("schedule:\n  batch: '8'", r"x:2: schedule.batch: Input should be a valid integer \(given: '8'\)"),
        ("optim:\n  generator:\n    betas: [0.5, 2.0]", r"x:3: optim.generator.betas.1: .*less than or equal to 1"),
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


def test_assignments():
    assert strict_yaml.parse_assignment("a.b= [1, x]") == (("a", "b"), [1, "x"])
    for item in ("a", "=1"):
        with pytest.raises(ConfigError, match="must read key=value"):
            strict_yaml.parse_assignment(item)
