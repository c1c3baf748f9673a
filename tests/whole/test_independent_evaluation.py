"""The tables of a reproduction, and what an evaluation that knows nothing of the package finds in the same pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.models.registry import load_predictor
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import build_setup
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.segmentation import read_labels
from collagan_dist.types import POSITIONS, World
from tests.commands.conftest import call
from tests.reproduce.small import words, write_small
from tests.whole import independent_evaluation


def write_pictures(run: Path, folder: Path) -> None:
    """What the run's model makes of every test sample, as pictures."""
    config = read_config(run)
    setup = build_setup(config, World(), open_shards(config))
    predictor, _ = load_predictor(run, config, setup.engine, setup.tasks)
    for hole in (*POSITIONS, "block"):
        batch = setup.first_batch("test", setup.view(training=False, hole=hole), 100)
        outputs = predictor(batch)
        blended = BLENDS["poisson"](outputs, batch)["inpainting"]
        pictures = {
            "truth": to_bytes(batch.image_B3HW),
            "completed": to_bytes(composite(outputs["inpainting"], batch)),
            "blended": to_bytes(composite(blended, batch)),
            "labels": batch.label_BHW.numpy(),
            "found_labels": read_labels(outputs["segmentation"]).numpy(),
        }
        for number in range(len(batch.image_B3HW)):
            at = folder / hole / f"{number:03d}"
            at.mkdir(parents=True)
            for name, all_of in pictures.items():
                Image.fromarray(all_of[number]).save(at / f"{name}.png")
            np.save(at / "heatmaps.npy", outputs["landmarks"][number].float().numpy())
            np.savetxt(at / "points.txt", batch.points_BK2[number].double().numpy())


@pytest.fixture(scope="module")
def reproduction(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("independent") / "out"
    command = words(write_small(out.parent), shards.folder, out, "--figures", "", "--models", "M*_isd")
    assert call(*command) == 0
    return out


def test_tables_from_pictures_alone(reproduction, tmp_path):
    write_pictures(reproduction / "runs/M*_isd", tmp_path)
    first, second, third = (
        json.loads((reproduction / f"table{number}.json").read_text())["cells"]["M*_isd"] for number in (1, 2, 3)
    )
    assert len(independent_evaluation.samples(tmp_path, "O1")) >= 5
    compared = 0
    for column, cell in independent_evaluation.table1(tmp_path).items():
        for kind, value in cell.items():
            assert first[column][kind]["ours"] == pytest.approx(value, abs=1e-6), (column, kind)
            compared += 1
    for table, found in (
        (second, independent_evaluation.table2(tmp_path)),
        (third, independent_evaluation.table3(tmp_path)),
    ):
        assert {column for column, cell in table.items() if cell["ours"] is not None} == set(found)
        for column, value in found.items():
            assert table[column]["ours"] == pytest.approx(value, abs=1e-6), column
            compared += 1
    assert compared >= 24 + 8 + 6
