"""`collagan evaluate`: every kind of hole, blended or not, with what was asked for and nothing of training changed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.config.load import to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.complete import complete
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.tasks.segmentation import dice
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.training.small import small
from tests.training.test_ranks import setup


@pytest.fixture(scope="module")
def run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored") / "run"
    train(small(shards.folder, schedule__steps=4), folder, World())
    return folder


def test_holes_and_blends_in_one_call(run: Path) -> None:
    done = collagan("evaluate", run, "--hole", "O1,O6,block", "--blend", "both")
    names = ["test-O1", "test-O1-blended", "test-O6", "test-O6-blended", "test-block", "test-block-blended"]
    assert [line for line in done.stdout.splitlines() if line.endswith(".json")] == [
        str(run / "evaluation" / f"{name}.json") for name in names
    ]
    for name in names:
        metrics = json.loads((run / "evaluation" / f"{name}.json").read_bytes())
        assert (metrics["split"], metrics["hole"]) == ("test", name.split("-")[1])
        assert metrics["blend"] == ("poisson" if name.endswith("blended") else "none") and metrics["step"] == 4
        assert metrics["settings"]["positions"] == "landmarks"
        assert (run / "evaluation" / f"{name}.png").is_file()
        assert ("hole_size" in metrics) == (metrics["hole"] != "block")
        if metrics["hole"] == "O6":  # wider than high, and about a tenth of 32x32 pixels
            assert metrics["hole_size"][1] > metrics["hole_size"][0] > 4
    assert (run / "metrics.json").read_bytes() == (run / "evaluation" / "test-block.json").read_bytes()


def test_rows_are_what_the_metrics_are_made_of(run: Path) -> None:
    ((metrics, path),) = score(run, World())
    rows = np.load(path.with_suffix(".npz"))
    assert list(rows["ids"]) == list(range(metrics["samples"]))
    assert rows["psnr"].mean() == pytest.approx(metrics["psnr"])
    assert rows["psnr"].std(ddof=1) / np.sqrt(len(rows["psnr"])) == pytest.approx(metrics["se"]["psnr"])
    assert dice(rows["dice"].sum(0))[6] == pytest.approx(metrics["dice"]["nose"])
    assert rows["landmark_error"].mean() == pytest.approx(metrics["landmark_error"]["mean"])


def test_ranks_score_alike(run: Path, shards: Manifest) -> None:
    ((alone, path),) = score(run, World())
    rows = dict(np.load(path.with_suffix(".npz")))
    collagan("evaluate", run, ranks=2)
    assert json.loads(path.read_bytes()) == json.loads(json.dumps(alone))
    assert all(np.array_equal(v, rows[k], equal_nan=True) for k, v in np.load(path.with_suffix(".npz")).items())


def test_only_the_first_samples(run: Path) -> None:
    ((whole, path),) = score(run, World())
    rows = dict(np.load(path.with_suffix(".npz")))
    headline = (run / "metrics.json").read_bytes()
    ((few, _),) = score(run, World(), sets=["evaluate.samples=3", "evaluate.baselines=0"])
    assert few["samples"] == 3 and few["psnr"] == pytest.approx(rows["psnr"][:3].mean()) and "baselines" not in few
    assert few["settings"]["samples"] == 3 and whole["settings"]["samples"] is None
    assert (run / "metrics.json").read_bytes() == headline  # it is that of all samples


def test_fixed_positions_have_a_file_of_their_own(run: Path) -> None:
    results = score(run, World(), ScoreRequest(holes=["O2", "block"]), sets=["evaluate.positions=fixed"])
    assert [path.name for _, path in results] == ["test-O2-fixed.json", "test-block.json"]


@pytest.mark.parametrize("item", ["model.noise=0", "data.image_size=64", "evaluate.redout=argmax"])
def test_what_was_learned_cannot_be_set(run: Path, item: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\."):
        score(run, World(), sets=[item])


def test_another_size_is_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="pictures of 32 pixels only"):
        score(run, World(), sets=["evaluate.size=64"])


def test_nothing_to_blend(shards: Manifest, tmp_path: Path) -> None:
    config = small(shards.folder, schedule__steps=1, model__tasks=["landmarks"])
    train(config, tmp_path / "run", World())
    with pytest.raises(ConfigError, match="no completions to blend"):
        score(tmp_path / "run", World(), ScoreRequest(blends=["poisson"]))


def test_completions_of_nothing_are_not_blended(run: Path, drawn: Path, shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder, schedule__steps=1, model__tasks=["segmentation"]), tmp_path / "run", World())
    picture = next((drawn / "Img/img_celeba").iterdir())
    with pytest.raises(ConfigError, match="no completions to blend"):
        complete(tmp_path / "run", picture, tmp_path / "out", blend="poisson")
    (sheet,) = complete(run, picture, tmp_path / "out", "O6", "poisson")
    assert sheet.is_file()


@pytest.mark.parametrize(("box", "message"), [([100, 0, 40, 10], "reaches beyond"), ([0, 0, 0, 10], "fixed.O1.2")])
def test_fixed_boxes_lie_in_the_picture(run: Path, box: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(run, World(), sets=[f"evaluate.fixed.O1={box}"])


def test_a_box_without_a_pixel_has_no_size(run: Path) -> None:
    """A hole of one pixel at 128 may have none at 32."""
    ((metrics, _),) = score(
        run, World(), ScoreRequest(holes=["O1"]), sets=["evaluate.positions=fixed", "evaluate.fixed.O1=[1, 1, 1, 1]"]
    )
    assert "hole_size" not in metrics and metrics["psnr"] == 100 and "psnr_hole" not in metrics


def test_batch_statistics_of_one_sample_are_the_running_ones(run: Path) -> None:
    sets = ["evaluate.samples=1", "evaluate.baselines=0"]
    ((batch, _),) = score(run, World(), sets=[*sets, "evaluate.batch_norm=batch"])
    ((running, _),) = score(run, World(), sets=sets)
    assert batch["psnr"] == running["psnr"]


def test_a_hole_has_the_shape_of_the_picture_or_of_its_square(run: Path, tmp_path: Path) -> None:
    done = {}
    for name, (height, width) in {"photo": (48, 36), "whole": (96, 72), "square": (20, 20), "wrong": (20, 50)}.items():
        picture = np.zeros((height, width, 3), np.uint8)
        picture[height // 4 : height // 2] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    for name in ("whole", "square"):
        (done[name],) = complete(run, tmp_path / "photo.png", tmp_path / name, str(tmp_path / f"{name}.png"))
    with pytest.raises(DataError, match=r"is 50x20, of another shape than the picture \(36x48\)"):
        complete(run, tmp_path / "photo.png", tmp_path / "out", str(tmp_path / "wrong.png"))
    with pytest.raises(ConfigError, match="only how a model is looked at"):
        complete(run, tmp_path / "photo.png", tmp_path / "out", sets=["seed=3"])


def test_unknown_holes_are_refused(run: Path) -> None:
    refused = collagan("evaluate", run, "--hole", "O7", check=False)
    assert refused.returncode == 2 and "O7" in refused.stderr and "O6" in refused.stderr


def test_a_run_evaluates_while_it_trains(shards: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(small(shards.folder, schedule__steps=2, evaluate__every=2, evaluate__split="test")))
    collagan("train", path, "--run", tmp_path / "run")
    collagan("evaluate", tmp_path / "run")
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (line,) = [r for r in told if r["kind"] == "eval"]
    scored = json.loads((tmp_path / "run" / "metrics.json").read_bytes())
    assert line["psnr"] == scored["psnr"] and line["dice"] == scored["dice"]


def test_every_seed_is_scored_on_the_same_holes(shards: Manifest) -> None:
    views = [setup(shards, seed=seed).view(training=False) for seed in (0, 5)]
    training = [setup(shards, seed=seed).view(training=True) for seed in (0, 5)]
    assert views[0] == views[1] and training[0].seed == 0 and training[1].seed == 5
