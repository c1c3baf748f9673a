import json
import subprocess
import sys

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import load_config, preset_names, validate_config


def test_a_preset_is_printed_with_all_its_keys(collagan, tmp_path):
    result = collagan("config", "demo")
    assert result.code == 0 and "  image_size: 64  # default: 128\n" in result.out
    (tmp_path / "mine.yaml").write_text(result.out)
    assert load_config(str(tmp_path / "mine.yaml")) == load_config("demo")
    assert (
        collagan("config", "demo", "--diff", tmp_path / "mine.yaml").out
        == f"demo and {tmp_path / 'mine.yaml'} are equal\n"
    )


def test_the_schema_alone(collagan):
    result = collagan("config", "--schema")
    tree = json.loads(result.out)
    assert result.code == 0 and result.err == "" and set(tree["properties"]) == {*load_config("demo").model_dump()}
    assert tree["properties"]["seed"]["description"].startswith("Seed of everything random")


def test_what_differs(collagan, tmp_path):
    (tmp_path / "mine.yaml").write_text("schedule: {steps: 100, batch: 32}\n")
    lines = collagan("config", tmp_path / "mine.yaml", "--diff", "stable").out.splitlines()
    assert [line.split() for line in lines[1:] if line.startswith("schedule")] == [
        ["schedule.batch", "32", "64"],
        ["schedule.steps", "100", "null"],
    ]


def test_what_a_key_means(collagan):
    assert "  default: 2\n" not in collagan("config", "--explain", "schedule.batch").out
    assert "  default: 64\n  demo: 32\n" in collagan("config", "demo", "--explain", "schedule.batch").out


def test_wrong_usage(collagan):
    assert f"name a YAML file or a preset: {', '.join(preset_names())}" in collagan("config").err
    assert "did you mean demo?" in collagan("config", "dmeo").err
    for words in (
        ("demo", "--diff", "stabel"),
        ("--diff", "demo"),
        ("demo", "--explain", "stepz"),
        ("demo", "--schema", "--diff", "x"),
    ):
        assert collagan("config", *words)[:2] == (2, "")


def test_torch_is_not_imported():
    code = "import sys; from collagan_dist.commands.main import main\ntry: main(['config', 'demo'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.endswith("False\n") and validate_config(
        strict_yaml.load(result.stdout.removesuffix("False\n"), "x")[0], "x"
    )
