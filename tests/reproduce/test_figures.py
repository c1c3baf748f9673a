from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collagan_dist.reproduce import figures, sample_predictions
from collagan_dist.reproduce.figures import draw_figure, mosaic
from collagan_dist.reproduce.plan import FIGURES, PlannedRun
from collagan_dist.reproduce.sample_predictions import SamplePredictions


@pytest.fixture
def runs(trained: PlannedRun, tmp_path: Path) -> dict[str, PlannedRun]:
    """Every model of the figures but GFC, which is not trained; all are the same network."""
    names = {name for names in FIGURES.values() for name in names}
    found = {name: replace(trained, name=name, base=name, out=tmp_path) for name in names}
    (tmp_path / "runs").mkdir()
    for name in names - {"GFC"}:
        found[name].folder.symlink_to(trained.folder)
    return found


def test_a_figure_is_drawn_once(runs, shards, tmp_path, monkeypatch):
    """And again for other runs, here of another size, and where figures are drawn in another way."""
    path = tmp_path / "figure6.png"
    assert draw_figure(6, runs, str(shards.folder), tmp_path) is None
    drawn, data = path.stat().st_mtime_ns, path.read_bytes()
    assert draw_figure(6, runs, str(shards.folder), tmp_path) is None and path.stat().st_mtime_ns == drawn
    path.unlink()
    assert draw_figure(6, runs, str(shards.folder), tmp_path) is None and path.read_bytes() == data
    with Image.open(path) as image:
        assert "Description" not in image.info
        height = image.height
    config = runs["M_i"].config
    larger = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 64})})
    draw_figure(6, {**runs, "M_i": replace(runs["M_i"], config=larger)}, str(shards.folder), tmp_path)
    with Image.open(path) as image:
        assert image.info["Description"] == "Pictures of M_i at 64x64 pixels, the others at 32x32."
        assert image.height > height
    drawn = path.stat().st_mtime_ns
    monkeypatch.setattr(figures, "_DRAWING", 0)
    draw_figure(6, {**runs, "M_i": replace(runs["M_i"], config=larger)}, str(shards.folder), tmp_path)
    assert path.stat().st_mtime_ns > drawn


@pytest.mark.parametrize("number", [1, 3, 4])
def test_a_figure_has_pictures(number, runs, shards, tmp_path):
    assert draw_figure(number, runs, str(shards.folder), tmp_path) is None
    with Image.open(tmp_path / f"figure{number}.png") as image:
        assert image.width > 500 and image.height > 500 and len(image.convert("RGB").getcolors(1 << 20) or ()) > 200


def test_figure_5_has_six_rows_and_nine_columns(runs, shards, tmp_path, monkeypatch):
    """The last row is empty where nothing is trained; the noise columns come from the noise models."""
    seen, grids, draw_sheet = set(), [], figures.draw_sheet

    def recorded(run, data, hole, count):
        seen.add((run.name, hole))
        return SamplePredictions(run, data, hole, count)

    monkeypatch.setattr(sample_predictions, "SamplePredictions", recorded)
    monkeypatch.setattr(figures, "draw_sheet", lambda rows, **more: grids.append(rows) or draw_sheet(rows, **more))
    assert draw_figure(5, runs, str(shards.folder), tmp_path) == "not trained: GFC"
    assert (tmp_path / "figure5.png").exists()
    (rows,) = grids
    assert [len(row) for row in rows] == [9] * 6 and all(one is None for one in rows[5])
    assert all(one is not None for row in rows[:5] for one in row)
    assert seen == {
        *((name, hole) for name in ("M*_isd", "CE", "SII") for hole in ("block", "pattern")),
        ("M*_isd-noise", "noise"), ("CE-noise", "noise"), ("SII", "noise"),
    }  # fmt: skip


def test_nothing_trained_is_no_figure(trained, shards, tmp_path):
    nothing = {name: replace(trained, name=name, out=tmp_path) for name in FIGURES[6]}
    assert draw_figure(6, nothing, str(shards.folder), tmp_path) == "not trained: M_isd, M_i"
    assert not (tmp_path / "figure6.png").exists()


def test_mosaic():
    maps = np.stack([np.full((2, 3), 5.0), np.arange(6.0).reshape(2, 3)])
    sheet = mosaic(maps, gap=1)
    assert sheet.shape == (2, 7, 3) and sheet.dtype == np.uint8
    assert (sheet[:, :3] == 0).all() and (sheet[:, 3] == 255).all()
    assert sheet[0, 4, 0] == 0 and sheet[1, 6, 0] == 255
    assert mosaic(np.zeros((64, 8, 8))).shape == (8 * 10 - 2, 8 * 10 - 2, 3)
