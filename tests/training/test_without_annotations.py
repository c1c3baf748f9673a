"""Sets without label maps, landmarks or both: what they can train is trained, scored and reported; what not, said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collagan_dist.commands.main import main
from tests.data.layouts import write_celebamask_hq, write_folder

SETTINGS = ["schedule.steps=4", "schedule.batch=4", "data.image_size=32", "model.widths.generator=4", "model.widths.discriminator=4",
            "log.grid_every=2", "log.every=2", "evaluate.every=4", "runtime.threads=1", "data.threads=1"]  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in args])
    said = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, said.out + said.err


def pack(capsys: pytest.CaptureFixture[str], tmp_path: Path, dataset: str, root: Path, *sets: str) -> Path:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"dataset: {dataset}\nroot: {root}\nout: {tmp_path / 'shards'}\nstore_size: 44\n")
    options = [word for item in sets for word in ("--set", item)]
    code, text = run(capsys, "pack", recipe, *options)
    assert code == 0, text
    return tmp_path / "shards"


def train(capsys: pytest.CaptureFixture[str], shards: Path, run_folder: Path, model: str) -> tuple[int, str]:
    options = [word for item in SETTINGS for word in ("--set", item)]
    return run(capsys, "train", "demo", "--data", shards, "--run", run_folder, "--model", model, *options)


def train_evaluate_report(capsys: pytest.CaptureFixture[str], tmp_path: Path, shards: Path, model: str) -> dict:
    folder = tmp_path / f"run-{model}"
    code, text = train(capsys, shards, folder, model)
    assert code == 0, text
    code, text = run(capsys, "evaluate", folder, "--split", "test")
    assert code == 0, text
    code, text = run(capsys, "report", folder)
    assert code == 0 and (folder / "report.html").stat().st_size > 1000, text
    assert len(list((folder / "grids").glob("*.png"))) == 2
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.parametrize("store", ["crop", "original"])
def test_label_maps_without_landmarks(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], store: str
) -> None:
    write_celebamask_hq(drawn, tmp_path / "hq")
    shards = pack(capsys, tmp_path, "celebamask_hq", tmp_path / "hq", f"store={store}")
    metrics = train_evaluate_report(capsys, tmp_path, shards, "M_is")
    assert metrics["samples"] == 6 and "dice" in metrics and "psnr" in metrics and "landmark_error" not in metrics
    for model in ("M_isd", "M_id", "M_d"):
        code, text = train(capsys, shards, tmp_path / "refused", model)
        assert code == 3 and "has no landmarks" in text and "label maps" not in text and "train --model M_is," in text
    assert not (tmp_path / "refused").exists()


def test_neither(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(drawn, tmp_path / "set", columns=())
    (tmp_path / "set/labels").rename(tmp_path / "labels")
    shards = pack(capsys, tmp_path, "folder", tmp_path / "set", "store=original")
    metrics = train_evaluate_report(capsys, tmp_path, shards, "M_i")
    assert metrics["samples"] > 0 and metrics["baselines"].keys() == {"mean_colour", "biharmonic"}
    for model, named in (("M_is", ["label maps"]), ("M_d", ["landmarks"]), ("M_isd", ["label maps", "landmarks"])):
        code, text = train(capsys, shards, tmp_path / "refused", model)
        assert code == 3 and all(name in text for name in named) and "train --model M_i," in text


def test_landmarks_without_label_maps(drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folder(drawn, tmp_path / "set", columns=("split",))
    (tmp_path / "set/labels").rename(tmp_path / "labels")
    shards = pack(capsys, tmp_path, "folder", tmp_path / "set", "landmarks=faces.csv", "store=original")
    metrics = train_evaluate_report(capsys, tmp_path, shards, "M_id")
    assert "landmark_error" in metrics and "dice" not in metrics
    for model in ("M_isd", "M_is", "M_s"):
        code, text = train(capsys, shards, tmp_path / "refused", model)
        assert (
            code == 3 and "has no label maps" in text and "no landmarks" not in text and "train --model M_id," in text
        )
