import json

import numpy as np
import pytest

from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.setup import build_setup, target_means
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


def points_of(shards, **changes):
    setup = build_setup(small(shards.folder, **changes), World(), shards)
    return setup.first_batch("test", setup.view(training=False), 100).points_BK2.double().numpy()


def test_augmented_views_are_other_crops_of_the_same_faces(shards):
    """Each is the plain view turned by up to 5 degrees, scaled by up to 10 % and shifted by up to 5 %; never mirrored."""
    plain, augmented = points_of(shards), points_of(shards, evaluate__augment=True)
    assert (points_of(shards, evaluate__augment=True, seed=9) == augmented).all()
    found = []
    for one, other in zip(plain, augmented, strict=True):
        # In complex numbers a turn with a scale is a factor, and a mirrored face has none that fits.
        a, b = (side[:, 0] + 1j * side[:, 1] for side in (one, other))
        factor = ((b - b.mean()) * (a - a.mean()).conj()).sum() / (abs(a - a.mean()) ** 2).sum()
        assert abs(factor * (a - a.mean()) + b.mean() - b).max() < 1e-4
        found.append((abs(factor), np.rad2deg(np.angle(factor)), b.mean() - a.mean()))
    scales, angles, shifts = map(np.array, zip(*found, strict=True))
    assert 0.89 < scales.min() < 0.99 < 1.01 < scales.max() < 1.13
    assert -5.01 < angles.min() < -0.5 < 0.5 < angles.max() < 5.01
    assert len(set(np.round(shifts, 6))) == len(plain) and 0.3 < abs(shifts).max() < 0.2 * 32


def test_an_evaluation_with_augmentation_has_a_name_of_its_own(trained_run):
    (plain, path), (metrics, another) = (
        score(trained_run, World(), sets=sets)[0] for sets in ([], ["evaluate.augment=true"])
    )
    assert "augment" not in plain["settings"] and metrics["settings"]["augment"] is True
    assert "-settings-" in another.name and path.name == "test-block.json"
    constants = [one["baselines"]["mean_landmarks"]["landmark_error"]["mean"] for one in (plain, metrics)]
    assert constants[1] > 1.1 * constants[0]  # the crop gives the landmarks away


def test_what_is_learned_does_not_depend_on_the_views_at_test(shards):
    setups = [build_setup(small(shards.folder, evaluate__augment=value), World(), shards) for value in (False, True)]
    one, other = map(target_means, setups)
    assert (one == other).all() and setups[0].view(training=True) == setups[1].view(training=True)


def test_the_mean_labels_are_the_most_frequent_classes_of_training_views(trained_run, shards):
    ((metrics, _),) = score(trained_run, World())
    setup = build_setup(small(shards.folder), World(), shards)
    view = setup.view(training=False, hole="none")
    training = setup.first_batch("train", view, 512).label_BHW.numpy()
    truth = setup.first_batch("test", view, 512).label_BHW.numpy()
    constant = np.array([[np.bincount(training[:, y, x]).argmax() for x in range(32)] for y in range(32)])
    expected = [2 * ((truth == c) & (constant == c)).sum() / ((truth == c).sum() + len(truth) * (constant == c).sum())
                for c in range(1, 10) if (truth == c).any() or (constant == c).any()]  # fmt: skip
    assert metrics["baselines"]["mean_labels"]["dice"]["mean"] == pytest.approx(np.mean(expected))
    assert np.mean(expected) > 0.05
