"""Figures from a trained run: what each picture is, and that a figure is drawn once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from collagan_dist.config.tree import Search
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.reproduce import figures
from collagan_dist.reproduce.figures import draw_figure, mosaic
from collagan_dist.reproduce.plan import FIGURES, PlannedRun
from collagan_dist.reproduce.sample_predictions import SamplePredictions
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.training.small import small

STEPS = 2


@pytest.fixture(scope="module")
def trained(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> PlannedRun:
    out = tmp_path_factory.mktemp("figures")
    config = small(shards.folder, schedule__steps=STEPS, optim__ema=0.0)  # type: ignore[arg-type]
    run = PlannedRun("M*_isd", "M*_isd", config, out, STEPS)
    train(config, run.folder, World())
    return run


@pytest.fixture
def runs(trained: PlannedRun, tmp_path: Path) -> dict[str, PlannedRun]:
    """Every model of the figures but GFC, which is not trained; all are the same network."""
    names = {name for names in FIGURES.values() for name in names}
    found = {name: replace(trained, name=name, base=name, out=tmp_path) for name in names}
    (tmp_path / "runs").mkdir()
    for name in names - {"GFC"}:
        found[name].folder.symlink_to(trained.folder)
    return found


@pytest.mark.parametrize("number", [1, 3, 4, 6])
def test_a_figure_is_drawn_once(number: int, runs: dict[str, PlannedRun], shards: Manifest, tmp_path: Path) -> None:
    path = tmp_path / f"figure{number}.png"
    assert draw_figure(number, runs, str(shards.folder), tmp_path) is None
    with Image.open(path) as image:
        assert image.width > 500 and len(image.convert("RGB").getcolors(1 << 20) or ()) > 200
    drawn = path.stat().st_mtime_ns
    assert draw_figure(number, runs, str(shards.folder), tmp_path) is None and path.stat().st_mtime_ns == drawn
    longer = {name: replace(run, config=run.config.model_copy(update={"seed": 9})) for name, run in runs.items()}
    assert draw_figure(number, longer, str(shards.folder), tmp_path) is None and path.stat().st_mtime_ns > drawn


def test_figure_5_has_six_rows_and_nine_columns(
    runs: dict[str, PlannedRun], shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last row is empty where nothing is trained; the noise columns come from the noise models."""
    seen: list[tuple[str, str, int]] = []
    grids: list[figures.Grid] = []
    layout = figures._layout

    class Noted(SamplePredictions):
        def __init__(self, run: PlannedRun, data: str, hole: str, count: int) -> None:
            seen.append((run.name, hole, count))
            super().__init__(run, data, hole, count)

    monkeypatch.setattr("collagan_dist.reproduce.sample_predictions.SamplePredictions", Noted)
    monkeypatch.setattr(figures, "_layout", lambda rows, **more: grids.append(rows) or layout(rows, **more))
    assert draw_figure(5, runs, str(shards.folder), tmp_path) == "not trained: GFC"
    assert (tmp_path / "figure5.png").exists()
    (rows,) = grids
    assert [len(row) for row in rows] == [9] * 6 and all(one is None for one in rows[5])
    assert all(one is not None for row in rows[:5] for one in row)
    assert {(name, hole) for name, hole, _ in seen} == {
        *((name, hole) for name in ("M*_isd", "CE", "SII") for hole in ("block", "pattern")),
        ("M*_isd-noise", "noise"), ("CE-noise", "noise"), ("SII", "noise"),
    }  # fmt: skip


def test_pictures_of_another_size_are_said_to_be(runs: dict[str, PlannedRun], shards: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "figure5.png"
    draw_figure(5, runs, str(shards.folder), tmp_path)
    with Image.open(path) as image:
        assert "Description" not in image.info
        height = image.height
    config = runs["SII"].config
    larger = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 64})})
    draw_figure(5, {**runs, "SII": replace(runs["SII"], config=larger)}, str(shards.folder), tmp_path)
    with Image.open(path) as image:
        assert (
            image.info["Description"] == "Pictures of SII at 64x64 pixels, the others at 32x32."
            and image.height > height
        )


def test_nothing_trained_is_no_figure(trained: PlannedRun, shards: Manifest, tmp_path: Path) -> None:
    nothing = {name: replace(trained, name=name, out=tmp_path) for name in FIGURES[6]}
    assert draw_figure(6, nothing, str(shards.folder), tmp_path) == "not trained: M_isd, M_i"
    assert not (tmp_path / "figure6.png").exists()


def test_what_the_pictures_are(trained: PlannedRun, shards: Manifest) -> None:
    predictions = SamplePredictions(trained, str(shards.folder), "block", 4)
    hole = predictions._batch.hole_B1HW[:, 0].numpy()[..., None]
    assert (
        predictions.original.shape == (4, 32, 32, 3)
        and (predictions.masked == predictions.original).all(-1)[~hole[..., 0]].all()
    )
    assert np.array_equal(predictions.composite, np.where(hole, predictions.raw, predictions.masked))
    assert np.array_equal(predictions.blended[~hole[..., 0]], predictions.masked[~hole[..., 0]])
    assert not np.array_equal(predictions.blended, predictions.composite)
    assert (predictions.overlay != predictions.composite).mean() > 0.5


def test_pictures_are_made_as_the_tables_are_scored(trained: PlannedRun, shards: Manifest) -> None:
    """How a model is looked at may change after its training: its config.yaml tells of then, the plan of now."""
    evaluate = trained.config.evaluate.model_copy(
        update={"noise": not trained.config.evaluate.noise, "search": Search(steps=7, prior=0.2)}
    )
    now = replace(trained, config=trained.config.model_copy(update={"evaluate": evaluate}))
    assert SamplePredictions(now, str(shards.folder), "block", 2)._setup.config.evaluate == evaluate
    former, noisy = (SamplePredictions(run, str(shards.folder), "block", 2).raw for run in (trained, now))
    assert not np.array_equal(former, noisy)


def test_features_are_those_before_the_output_layer(trained: PlannedRun, shards: Manifest) -> None:
    """With the skip's half put back, the output layer makes G's output of them."""
    predictions = SamplePredictions(trained, str(shards.folder), "block", 2)
    found = predictions.features(1)
    assert found.maps_CHW.shape == (4, 16, 16) and found.maps_CHW.min() >= 0
    generator, batch = predictions._predictor.generator, predictions._batch
    skips: list[torch.Tensor] = []
    generator.encoder[0].register_forward_hook(lambda *call: skips.append(call[2]))  # type: ignore[index, union-attr, operator]
    raw = predictions._predictor(batch)["inpainting"]
    with torch.no_grad():
        both = torch.cat([torch.from_numpy(found.maps_CHW), skips[0][1]])
        output = torch.tanh(generator.output(both[None]))[0, :3]  # type: ignore[operator, union-attr]
    assert torch.allclose(output, raw[1], atol=1e-5)
    hole = batch.hole_B1HW[1, 0].numpy()
    half = hole.reshape(16, 2, 16, 2).mean((1, 3)) > 0.5
    assert found.inside == pytest.approx(found.maps_CHW[:, half].mean(), rel=1e-5)
    assert found.outside == pytest.approx(found.maps_CHW[:, ~half].mean(), rel=1e-5)


def test_mosaic() -> None:
    maps = np.stack([np.full((2, 3), 5.0), np.arange(6.0).reshape(2, 3)])
    sheet = mosaic(maps, gap=1)
    assert sheet.shape == (2, 7, 3) and sheet.dtype == np.uint8
    assert (sheet[:, :3] == 0).all() and (sheet[:, 3] == 255).all()
    assert sheet[0, 4, 0] == 0 and sheet[1, 6, 0] == 255
    assert mosaic(np.zeros((64, 8, 8))).shape == (8 * 10 - 2, 8 * 10 - 2, 3)
