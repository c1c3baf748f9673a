from dataclasses import replace

import numpy as np
import pytest
import torch

from collagan_dist.config.tree import Search
from collagan_dist.reproduce.sample_predictions import SamplePredictions


def test_what_the_pictures_are(trained, shards):
    predictions = SamplePredictions(trained, str(shards.folder), "block", 4)
    hole = predictions._batch.hole_B1HW[:, 0].numpy()[..., None]
    assert predictions.original.shape == (4, 32, 32, 3)
    assert (predictions.masked == predictions.original).all(-1)[~hole[..., 0]].all()
    assert np.array_equal(predictions.composite, np.where(hole, predictions.raw, predictions.masked))
    assert np.array_equal(predictions.blended[~hole[..., 0]], predictions.masked[~hole[..., 0]])
    assert not np.array_equal(predictions.blended, predictions.composite)
    assert (predictions.overlay != predictions.composite).mean() > 0.5


def test_pictures_are_made_with_the_settings_of_the_tables(trained, shards):
    other = {"noise": not trained.config.evaluate.noise, "search": Search(steps=7, prior=0.2)}
    evaluate = trained.config.evaluate.model_copy(update=other)
    now = replace(trained, config=trained.config.model_copy(update={"evaluate": evaluate}))
    assert SamplePredictions(now, str(shards.folder), "block", 2)._setup.config.evaluate == evaluate
    former, noisy = (SamplePredictions(run, str(shards.folder), "block", 2).raw for run in (trained, now))
    assert not np.array_equal(former, noisy)


def test_features_are_those_before_the_output_layer(trained, shards):
    """With the skip's half put back, the output layer makes G's output of them."""
    predictions = SamplePredictions(trained, str(shards.folder), "block", 2)
    found = predictions.features(1)
    assert found.maps_CHW.shape == (4, 16, 16) and found.maps_CHW.min() >= 0
    generator, batch = predictions._predictor.generator, predictions._batch
    skips = []
    generator.encoder[0].register_forward_hook(lambda *call: skips.append(call[2]))
    raw = predictions._predictor(batch)["inpainting"]
    with torch.no_grad():
        both = torch.cat([torch.from_numpy(found.maps_CHW), skips[0][1]])
        output = torch.tanh(generator.output(both[None]))[0, :3]
    assert torch.allclose(output, raw[1], atol=1e-5)
    hole = batch.hole_B1HW[1, 0].numpy()
    half = hole.reshape(16, 2, 16, 2).mean((1, 3)) > 0.5
    assert found.inside == pytest.approx(found.maps_CHW[:, half].mean(), rel=1e-5)
    assert found.outside == pytest.approx(found.maps_CHW[:, ~half].mean(), rel=1e-5)
