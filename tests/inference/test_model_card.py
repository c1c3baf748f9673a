import json
import shutil
import tomllib

import pytest

from collagan_dist.inference.model_card import LICENCE, NetworkFile, model_card
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.runs.model_folder import read_config
from collagan_dist.types import CLASSES, World
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def evaluated(trained_run, tmp_path_factory):
    """A copy of the run with two evaluations."""
    run = tmp_path_factory.mktemp("card") / "run"
    shutil.copytree(trained_run, run, ignore=shutil.ignore_patterns("evaluation"))
    score(run, World(), ScoreRequest(holes=("block", "O1"), blends=("poisson",)))
    return run


def test_what_the_model_is_and_learned_from(evaluated, shards):
    card = model_card(evaluated, read_config(evaluated), 7, [NetworkFile("model.onnx", "onnxruntime 1", 1.5e-7)])
    assert card.startswith("# M*_isd\n") and "after 7 training steps, for faces of 32×32 pixels" in card
    assert "- `model.onnx`: compared with torch by onnxruntime 1; largest difference 1.5e-07\n" in card
    assert shards.hash in card and "train 48, valid 6, test 6" in card and str(shards.folder) not in card
    assert "\nPreset `stable`, but for these settings" in card and "\n| `schedule.batch` | 4 |\n" in card
    assert "data.shards" not in card and card.count("\n## ") == 5
    assert f"{len(CLASSES) - 1} hair" in card and "left_mouth" in card.split("## Limits")[1]


def test_every_metric_has_its_standard_error(evaluated):
    card = model_card(evaluated, read_config(evaluated), 7)
    results = sorted((evaluated / "evaluation").glob("*.json"))
    assert len(results) == 2
    for path in results:
        result = json.loads(path.read_text())
        (table,) = [t for t in card.split("### ")[1:] if t.startswith(f"split test, hole {result['hole']}, ")]
        assert "6 samples, blended (poisson)\n" in table and "not of this model's" not in table
        for key, value, error in (
            ("psnr_hole", result["psnr_hole"], result["se"]["psnr_hole"]),
            ("landmark_error/nose", result["landmark_error"]["nose"], result["se"]["landmark_error"]["nose"]),
        ):
            assert f"| {key} | {value:.4g} | {error:.4g} |\n" in table
        assert "baselines" not in table and "settings" not in table
    assert "of step 7, not of this model's" in model_card(evaluated, read_config(evaluated), 8)


def test_what_is_not_known_is_said(landmarks_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(landmarks_run, run, ignore=shutil.ignore_patterns("evaluation"))  # others evaluate it
    (run / "data.json").unlink()
    (run / "evaluation").mkdir()
    (run / "evaluation/test-block.json").write_text("[")
    (run / "evaluation/test-O1.json").write_text('{"split": "test", "se": 3, "psnr": 20.0}')
    card = model_card(run, read_config(run), 1)
    assert "| psnr | 20" in card
    (run / "evaluation/test-O1.json").unlink()
    card = model_card(run, read_config(run), 1)
    assert "Not known: it was exported from" in card and "`collagan evaluate` has not been run" in card
    assert "hair" not in card and "completion is invented" not in card


def test_the_licence_is_the_projects():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == LICENCE
