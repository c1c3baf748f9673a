"""Sets without label maps, landmarks or both: what they can train is trained, scored and reported; what not, said."""

import json
from pathlib import Path

import pytest

from tests.data.layouts import write_celebamask_hq, write_folder
from tests.faults.test_bad_input import run

SETTINGS = ["schedule.steps=4", "schedule.batch=4", "data.image_size=32", "model.widths.generator=4", "model.widths.discriminator=4",
            "log.grid_every=2", "log.every=2", "evaluate.every=4", "runtime.threads=1", "data.threads=1"]  # fmt: skip


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


def train_and_refuse(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shards: Path, model: str, refused: dict[str, set[str]]
) -> dict:
    """Train, evaluate and report; return the metrics, once the other models were refused for what they lack."""
    folder = tmp_path / f"run-{model}"
    for code, text in (
        train(capsys, shards, folder, model), run(capsys, "evaluate", folder, "--split", "test"), run(capsys, "report", folder)
    ):  # fmt: skip
        assert code == 0, text
    assert (folder / "report.html").stat().st_size > 1000 and len(list((folder / "grids").glob("*.png"))) == 2
    for other, lacks in refused.items():
        code, text = train(capsys, shards, tmp_path / "refused", other)
        assert code == 3 and f"train --model {model}," in text
        assert {name for name in ("label maps", "landmarks") if name in text} == lacks
    assert not (tmp_path / "refused").exists()
    return json.loads((folder / "metrics.json").read_text())


def test_label_maps_without_landmarks(drawn, tmp_path, capsys):
    write_celebamask_hq(drawn, tmp_path / "hq")
    shards = pack(capsys, tmp_path, "celebamask_hq", tmp_path / "hq", "store=original")
    lacks = {"landmarks"}
    metrics = train_and_refuse(capsys, tmp_path, shards, "M_is", {"M_isd": lacks, "M_id": lacks, "M_d": lacks})
    assert metrics["samples"] == 6 and "dice" in metrics and "psnr" in metrics and "landmark_error" not in metrics


@pytest.mark.parametrize(
    ("columns", "sets", "model", "refused", "baselines"),
    [
        ((), [], "M_i", {"M_is": {"label maps"}, "M_d": {"landmarks"}, "M_isd": {"label maps", "landmarks"}}, {"mean_colour", "biharmonic"}),
        (("split",), ["landmarks=faces.csv"], "M_id", {name: {"label maps"} for name in ("M_isd", "M_is", "M_s")}, None),
    ],
)  # fmt: skip
def test_without_label_maps(drawn, tmp_path, capsys, columns, sets, model, refused, baselines):
    write_folder(drawn, tmp_path / "set", columns=columns)
    (tmp_path / "set/labels").rename(tmp_path / "labels")
    shards = pack(capsys, tmp_path, "folder", tmp_path / "set", *sets, "store=original")
    metrics = train_and_refuse(capsys, tmp_path, shards, model, refused)
    assert "dice" not in metrics and ("landmark_error" in metrics) == (model == "M_id")
    assert baselines is None or metrics["baselines"].keys() == baselines
