import re

import pytest

from collagan_dist.sweep.effects import sweep_warnings
from collagan_dist.sweep.prepare import SweepOptions, prepare
from tests.sweep.small import HALVING, write

ADV = "loss.weights.inpainting.adv, loss.weights.segmentation.adv, loss.weights.landmarks.adv"


@pytest.mark.parametrize(
    ("space", "sets", "said"),
    [
        ({}, ["schedule.adv_from=0"], []),
        (
            {},
            ["schedule.adv_from=0.5"],
            [rf"{ADV}: no effect yet where trials are compared after 24, 72 samples: .* after 108"],
        ),
        (
            {},
            ["schedule.adv_from=54"],
            ["schedule.adv_from: .* it is no GAN", rf"{ADV}: searched without effect: the adversarial loss"],
        ),
        # Where the start is searched too, λ_adv has an effect in some trials.
        ({"schedule.adv_from": {"choice": [0, 54]}}, ["schedule.adv_from=54"], ["schedule.adv_from: .* it is no GAN"]),
        (
            {"model.sii.z": {"choice": [2, 3]}},
            ["schedule.adv_from=0"],
            ["model.sii.z: searched without effect: model.name is collagan"],
        ),
        ({}, ["schedule.adv_from=0", "schedule.epochs=2"], ["schedule.epochs: has no effect"]),
    ],
)
def test_what_is_searched_without_effect_is_said(shards, tmp_path, space, sets, said):
    config, file = write(tmp_path / "files", shards.folder, {**HALVING, "space": {**HALVING["space"], **space}})
    options = SweepOptions(str(config), str(file), str(shards.folder), tmp_path / "out", trials=6, sets=tuple(sets))
    found = sweep_warnings(prepare(options))
    assert len(found) == len(said) and all(re.match(one, text) for one, text in zip(said, found, strict=True)), found
