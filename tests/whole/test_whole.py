"""The main job from an empty folder to a report, by the commands that a user types, on 2 ranks."""

import json
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from safetensors.torch import load_file

from collagan_dist.data.readers.picture import resize_nearest
from tests.commands.conftest import call
from tests.conftest import collagan

NARROW = ["--set", "schedule.steps=30", "--set", "schedule.adv_from=20", "--set", "log.grid_every=15", "--set", "log.every=10",
          "--set", "model.widths.generator=8", "--set", "evaluate.every=30"]  # fmt: skip


def test_from_nothing_to_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("draw", "faces", "--count", "60", "--seed", "5") == 0
    assert call("pack", "drawn", "--root", "faces", "--out", "shards", "--set", "store_size=88") == 0
    collagan("train", "demo", "--data", "shards", "--out", "run", *NARROW, cwd=tmp_path, ranks=2)
    evaluated = collagan("evaluate", "run", cwd=tmp_path, ranks=2).stdout
    assert "PSNR in the hole" in evaluated and "biharmonic" in evaluated
    _check_run(tmp_path / "run")
    assert call("report", "run") == 0 and (tmp_path / "run/report.html").is_file()
    _check_complete(tmp_path)


def _check_run(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["samples"] == 6 and metrics["step"] == 30
    assert {"psnr_hole", "ssim_hole", "dice_per_image", "dice_hole", "landmark_error"} <= metrics.keys()
    assert set(metrics["baselines"]) == {"mean_colour", "biharmonic", "mean_landmarks", "mean_labels"}
    assert metrics == json.loads((run / "evaluation/test-block.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [10, 20, 30]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [30]
    assert sorted(p.name for p in (run / "grids").glob("*.png")) == ["step-00000015.png", "step-00000030.png"]
    checkpoint = run / "checkpoints/step-00000030"
    tensors = {f"{name}.safetensors" for name in ("generator", "discriminators", "optimizer", "ema")}
    assert {p.name for p in checkpoint.iterdir()} == {*tensors, "state.json", "manifest.json"}
    assert all(np.isfinite(t.float()).all() for name in tensors for t in load_file(checkpoint / name).values())
    assert [path.name for path in run.rglob(".*")] == [".lease.lock"]


def _check_complete(folder: Path) -> None:
    """Sizes, ranges, context bit for bit."""
    photo = cv2.imread(str(folder / "faces/Img/img_celeba/000060.jpg"))
    (folder / "in").mkdir()
    small = cv2.resize(photo[60:400, 10:350], (64, 64), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "in/square.png"), small)
    cv2.imwrite(str(folder / "in/wide.jpg"), photo)
    hole = np.zeros((64, 64), np.uint8)
    hole[20:52, 16:48] = 255
    cv2.imwrite(str(folder / "hole.png"), hole)
    collagan("complete", "run", "in", "--out", "out", "--hole", "hole.png", cwd=folder)
    done = cv2.imread(str(folder / "out/square.completed.png"))
    assert (done[hole == 0] == small[hole == 0]).all() and (done[hole > 0] != small[hole > 0]).any()
    labels = cv2.imread(str(folder / "out/square.labels.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (64, 64) and labels.max() <= 10
    points = json.loads((folder / "out/square.landmarks.json").read_text())
    assert np.shape(points) == (5, 2) and np.min(points) >= 0 and np.max(points) < 64
    # The square hole lies in the centre square of the photograph, whose size stays.
    wide = cv2.imread(str(folder / "out/wide.completed.png"))
    side = min(photo.shape[:2])
    inside = np.zeros(photo.shape[:2], np.uint8)
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    inside[top : top + side, left : left + side] = resize_nearest(hole, (side, side))
    as_decoded = simplejpeg.decode_jpeg((folder / "in/wide.jpg").read_bytes(), "BGR")
    assert wide.shape == photo.shape and (wide[inside == 0] == as_decoded[inside == 0]).all()
    assert (wide[inside > 0] != as_decoded[inside > 0]).any()
    assert len(list((folder / "out").iterdir())) == 8
