"""Golden losses: 20 seeded CPU steps of every model give the numbers they always gave.

A change of the numbers is a change of what is learned. Where one is meant: python -m tests.training.test_golden, and say why in the commit.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collagan_dist.config.models import MODELS, model_settings
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.models.registry import build_networks, build_step
from tests.training.one_rank import setup

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 20
SHOWN = (0, 9, 19)  # steps whose values are kept
CASES: dict[str, dict[str, Any]] = {
    **{name: {f"model__{key}": value for key, value in model_settings(name).items()} for name in MODELS},
    "M*_isd, one discriminator": {"model__discriminators": "shared"},
}


def losses(manifest: Manifest, settings: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Values by step, then by name."""
    part = setup(manifest, **settings)
    networks = build_networks(part.config, part.engine, part.tasks)
    for network in (networks.generator, networks.discriminators, networks.ema):
        network.double()  # rounding of another machine, or of another number of threads, must not grow into a difference
    step = build_step(part.config, part.engine, part.tasks, networks, STEPS)
    plan = ((np.arange(n, n + 4) % 40, np.full(4, n // 10)) for n in range(STEPS))
    batches = part.loader("train", part.view(training=True), 4).batches(plan)
    kept = {}
    for number, batch in enumerate(batches):
        exact = replace(batch, image_B3HW=batch.image_B3HW.double(), input_B3HW=batch.input_B3HW.double())
        values = step(exact, number).values
        if number in SHOWN:
            kept[str(number)] = {name: float(value) for name, value in values.items()}
    return kept


@pytest.mark.parametrize("case", CASES)
def test_losses(shards, case):
    golden = json.loads(GOLDEN.read_text())[case]
    found = losses(shards, CASES[case])
    assert found.keys() == golden.keys()
    for number, values in golden.items():
        assert found[number].keys() == values.keys()
        for name, value in values.items():
            if name.startswith("accuracy"):  # a share of few patches jumps when one logit crosses zero
                continue
            assert found[number][name] == pytest.approx(value, rel=1e-4, abs=1e-6), f"{case}, step {number}: {name}"


if __name__ == "__main__":
    from collagan_dist.data.packing.pack import pack
    from collagan_dist.data.shards.manifest import read_manifest
    from collagan_dist.faces.layout import draw_faces
    from tests.conftest import small_recipe

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw_faces(root / "faces", count=60, seed=3, workers=1)
        pack(small_recipe(root / "faces", root / "packed"), workers=1)
        manifest = read_manifest(root / "packed")
        GOLDEN.write_text(json.dumps({case: losses(manifest, s) for case, s in CASES.items()}, indent=1) + "\n")
