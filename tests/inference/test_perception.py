import json

import numpy as np
import pytest
import torch
from scipy import linalg

from collagan_dist.errors import ConfigError
from collagan_dist.inference.export import export
from collagan_dist.inference.perception import frechet_distance, measured_tasks
from collagan_dist.inference.score import score
from collagan_dist.setup import build_setup
from collagan_dist.types import World
from tests.training.small import small


def test_frechet_distance_is_heusels():
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(200, 6)), draw.normal(size=(150, 6)) @ draw.normal(size=(6, 6)) + 0.3
    first, second = np.cov(one.T), np.cov(other.T)
    means = ((one.mean(0) - other.mean(0)) ** 2).sum()
    expected = means + np.trace(first + second - 2 * linalg.sqrtm(first @ second).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-12)
    # Shifted alike: the square of the shift. Fewer samples than dimensions, where the covariances are singular.
    few = draw.normal(size=(4, 30))
    assert frechet_distance(few, few + 0.5) == pytest.approx(30 * 0.25, rel=1e-9)


def test_results_name_the_network_and_have_its_distances(trained_run, tmp_path):
    """A model that segments is its own network here; an export of it has the same weights."""
    ((plain, path),) = score(trained_run, World())
    ((metrics, named),) = score(trained_run, World(), sets=[f"evaluate.features={trained_run}"])
    export(trained_run, tmp_path / "exported")
    ((again, same),) = score(trained_run, World(), sets=[f"evaluate.features={tmp_path / 'exported'}"])
    assert "features" not in plain["settings"] and "perceptual" not in plain and path != named == same
    assert len(metrics["settings"]["features"]) == 16 and again == metrics
    assert metrics["features"] == {"network": "segmentation", "dimension": metrics["features"]["dimension"]}
    assert metrics["perceptual"] > 0 and metrics["frechet"] > 0 and metrics["se"]["perceptual"] > 0
    assert {key: metrics[key] for key in ("psnr", "ssim", "dice")} == {
        key: plain[key] for key in ("psnr", "ssim", "dice")
    }
    for baseline in ("mean_colour", "biharmonic"):
        assert metrics["baselines"][baseline].keys() >= {"perceptual", "frechet"}
    rows = np.load(named.with_suffix(".npz"))
    assert rows["perceptual"].mean() == pytest.approx(metrics["perceptual"])
    assert not any(name.startswith("features") for name in rows.files)
    assert json.loads(named.read_text())["frechet"] == metrics["frechet"]


def test_true_pictures_have_no_distance(trained_run, shards):
    setup = build_setup(small(shards.folder, evaluate__features=str(trained_run)), World(), shards)
    task = measured_tasks(setup)["inpainting"]
    batch = setup.first_batch("test", setup.view(training=False), 6)
    rows = task.measure(batch.image_B3HW, batch)
    assert (rows["perceptual"] == 0).all() and task.summarize(rows)[0]["frechet"] == pytest.approx(0, abs=1e-9)
    # What a picture gets does not depend on the others.
    output = torch.zeros_like(batch.image_B3HW)
    found = task.measure(output, batch)["perceptual"]
    ahead = setup.first_batch("test", setup.view(training=False), 2)
    assert (task.measure(output[:2], ahead)["perceptual"] == found[:2]).all() and (found > 0).all()
    single = task.summarize({name: values[:1] for name, values in task.measure(output, batch).items()})[0]
    assert "frechet" not in single and single["perceptual"] > 0


def test_a_network_that_cannot_be_read_is_an_error_before_anything_is_scored(trained_run, shards, tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.features: .*nowhere: no such folder or file"):
        score(trained_run, World(), sets=[f"evaluate.features={tmp_path / 'nowhere'}"])
    (tmp_path / "words.pth").write_text("weights")
    with pytest.raises(ConfigError, match=r"evaluate\.features: .*words.pth: is no safetensors file"):
        score(trained_run, World(), sets=[f"evaluate.features={tmp_path / 'words.pth'}"])
