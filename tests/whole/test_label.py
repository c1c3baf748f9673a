"""The loop that label maps close: train a parser, label photographs that have none, pack them, train on those."""

import json
import shutil

import cv2
import numpy as np

from tests.commands.conftest import call
from tests.conftest import ROOT

SMALL = ["--set", "data.image_size=32", "--set", "model.widths.generator=8", "--set", "model.widths.discriminator=4",
         "--set", "schedule.steps=80", "--set", "schedule.batch=8", "--set", "optim.generator.lr=5e-3", "--set", "model.noise=0.0",
         "--set", "schedule.adv_from=70", "--set", "log.grid_every=80"]  # fmt: skip


def test_a_parser_labels_photographs_that_are_then_trained_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def collagan(*args):
        code, said = call(*args), capsys.readouterr()
        assert code == 0, said.err
        return said.out

    collagan("draw", "faces", "--count", "60", "--seed", "5")
    pack = ["pack", ROOT / "shards/drawn.yaml", "--set", "store_size=44"]
    collagan(*pack, "--root", "faces", "--out", "shards")
    collagan("train", "parser", "--data", "shards", "--run", "run", *SMALL)
    table = collagan("evaluate", "run")
    assert "no holes" in table and "Dice" in table and "PSNR" not in table
    assert json.loads((tmp_path / "run/grids/columns.json").read_text()) == ["input", "labels", "true labels"]
    assert set(json.loads((tmp_path / "run/metrics.json").read_text())["baselines"]) == {"mean_labels"}
    collagan("report", "run")
    collagan("export", "run", "--out", "model", "--onnx")

    shutil.copytree(tmp_path / "faces", tmp_path / "photos", ignore=shutil.ignore_patterns("Label"))
    said = collagan("label", "photos", "--model", "model")
    assert "60 label maps; next: collagan pack celeba --root photos --set labels=Label/img_celeba" in said
    checked = collagan("label", "faces", "--model", "run", "--check")
    face = next(line.split() for line in checked.splitlines() if line.split()[:1] == ["face"])
    assert float(face[1]) > 0.6
    collagan("label", "photos", "--model", "model/model.onnx", "--out", "onnx")
    _same(tmp_path / "photos/Label/img_celeba", tmp_path / "onnx")

    collagan(*pack, "--root", "photos", "--out", "again", "--set", "labels=Label/img_celeba")
    train = ["train", "stable", "--model", "M_is", "--data", "again", "--run", "next", *SMALL]
    collagan(*train, "--set", "schedule.steps=2")
    assert (tmp_path / "next/checkpoints/step-00000002").is_dir()


def _same(one, other):
    paths = sorted(one.glob("*.png"))
    assert len(paths) == 60
    maps = [[cv2.imread(str(f / p.name), cv2.IMREAD_UNCHANGED) for p in paths] for f in (one, other)]
    assert all(m.any() for m in maps[0])
    assert np.mean([(a == b).mean() for a, b in zip(*maps, strict=True)]) > 0.999
