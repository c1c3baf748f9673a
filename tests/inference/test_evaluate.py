import json

import numpy as np
import pytest

from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.setup import build_setup
from collagan_dist.tasks.segmentation import dice
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.training.small import small


def test_metrics_are_the_means_of_the_stored_rows(trained_run):
    ((metrics, path),) = score(trained_run, World())
    rows = np.load(path.with_suffix(".npz"))
    assert list(rows["ids"]) == list(range(metrics["samples"]))
    assert rows["psnr"].mean() == pytest.approx(metrics["psnr"])
    assert rows["psnr"].std(ddof=1) / np.sqrt(len(rows["psnr"])) == pytest.approx(metrics["se"]["psnr"])
    assert dice(rows["dice"].sum(0))[6] == pytest.approx(metrics["dice"]["nose"])
    assert rows["landmark_error"].mean() == pytest.approx(metrics["landmark_error"]["mean"])


def test_only_the_first_samples(trained_run):
    ((all_samples, path),) = score(trained_run, World())
    rows = dict(np.load(path.with_suffix(".npz")))
    headline = (trained_run / "metrics.json").read_bytes()
    ((few, _),) = score(trained_run, World(), sets=["evaluate.samples=3", "evaluate.baselines=0"])
    assert few["samples"] == 3 and few["psnr"] == pytest.approx(rows["psnr"][:3].mean()) and "baselines" not in few
    assert few["settings"]["samples"] == 3 and all_samples["settings"]["samples"] is None
    assert (trained_run / "metrics.json").read_bytes() == headline  # still that of all samples


def test_a_box_without_a_pixel_has_no_size(trained_run):
    sets = ["evaluate.positions=fixed", "evaluate.fixed.O1=[1, 1, 1, 1]"]
    ((metrics, _),) = score(trained_run, World(), ScoreRequest(holes=["O1"]), sets=sets)
    assert "hole_size" not in metrics and metrics["psnr"] == 100 and "psnr_hole" not in metrics


def test_batch_statistics_of_one_sample_are_the_running_ones(trained_run):
    sets = ["evaluate.samples=1", "evaluate.baselines=0"]
    ((batch, _),) = score(trained_run, World(), sets=[*sets, "evaluate.batch_norm=batch"])
    ((running, _),) = score(trained_run, World(), sets=sets)
    assert batch["psnr"] == running["psnr"]


def test_a_run_evaluates_while_it_trains(shards, tmp_path):
    run = tmp_path / "run"
    train(small(shards.folder, schedule__steps=2, evaluate__every=2, evaluate__split="test"), run, World())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["kind"] == "eval"]
    ((metrics, _),) = score(run, World())
    assert line["psnr"] == metrics["psnr"] and line["dice"] == json.loads(json.dumps(metrics["dice"]))


def test_every_seed_is_scored_on_the_same_holes(shards):
    setups = [build_setup(small(shards.folder, seed=seed), World(), shards) for seed in (0, 5)]
    one, other = (setup.view(training=False) for setup in setups)
    assert one == other and [setup.view(training=True).seed for setup in setups] == [0, 5]
