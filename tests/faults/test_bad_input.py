"""Bad input: one error that says what, where and how to mend, the right exit code, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.commands.main import main
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import ROOT


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """(exit code, what went to stderr) of a command in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return int(stop.value.code or 0), capsys.readouterr().err


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


LANDMARKS, SPLITS = "Anno/list_landmarks_celeba.txt", "Eval/list_eval_partition.txt"


def drop_line(root: Path) -> None:
    lines = (root / LANDMARKS).read_text().splitlines()
    (root / LANDMARKS).write_text("\n".join(lines[:5] + lines[6:]) + "\n")


def bad_number(root: Path) -> None:
    edit(root / LANDMARKS, "000002.jpg ", "000002.jpg x")


def nine_numbers(root: Path) -> None:
    lines = (root / LANDMARKS).read_text().splitlines()
    lines[4] = " ".join(lines[4].split()[:-1])
    (root / LANDMARKS).write_text("\n".join(lines) + "\n")


def same_name_twice(root: Path) -> None:
    edit(root / LANDMARKS, "000003.jpg", "000002.jpg")


def no_split(root: Path) -> None:
    edit(root / SPLITS, "000005.jpg 0\n", "")


def split_seven(root: Path) -> None:
    edit(root / SPLITS, "000005.jpg 0", "000005.jpg 7")


def no_annotation(root: Path) -> None:
    (root / LANDMARKS).unlink()


def label_19(root: Path) -> None:
    path = str(root / "Label/img_celeba/000004.png")
    labels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    labels[:3, :5] = 19
    cv2.imwrite(path, labels)


def label_size(root: Path) -> None:
    cv2.imwrite(str(root / "Label/img_celeba/000004.png"), np.zeros((50, 40), np.uint8))


def no_label(root: Path) -> None:
    (root / "Label/img_celeba/000004.png").unlink()


def no_pictures(root: Path) -> None:
    shutil.rmtree(root / "Img")


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (drop_line, [f"{LANDMARKS}:1", "announces 60", "lists 59"]),
        (bad_number, [f"{LANDMARKS}:4", "000002.jpg", "10 integers"]),
        (nine_numbers, [f"{LANDMARKS}:5", "000003.jpg", "10 integers"]),
        (same_name_twice, [f"{LANDMARKS}:5", "000002.jpg", "second time"]),
        (no_split, [SPLITS, "000005.jpg is missing"]),
        (split_seven, [f"{SPLITS}:5", "000005.jpg", "0 train, 1 valid, 2 test"]),
        (no_annotation, [LANDMARKS, "is missing; copy it"]),
        (label_19, ["000004.png", "label 19", "0..10", "15 pixels"]),
        (label_size, ["000004.png", "40x50", "360x440"]),
        (no_label, ["000004.png", "is missing"]),
        (no_pictures, ["Img/img_celeba", "no such folder"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_unsound_annotations(
    copy_of_drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage, parts
) -> None:  # type: ignore[no-untyped-def]
    damage(copy_of_drawn)
    out = tmp_path / "packed"
    code, text = run(capsys, "pack", ROOT / "shards/drawn.yaml", "--root", copy_of_drawn, "--out", out, "--workers", 2)
    assert code == 3 and all(part in text for part in parts), text
    assert "Traceback" not in text
    assert not (out / "manifest.json").exists()
    assert not [p for p in out.rglob("*") if p.name.endswith(".partial")] if out.exists() else True


def test_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    code, text = run(
        capsys, "pack", ROOT / "shards/drawn.yaml", "--root", tmp_path / "empty", "--out", tmp_path / "out"
    )
    assert code == 3 and "Img/img_celeba: no such folder" in text and not (tmp_path / "out").exists()


def test_folder_that_is_no_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "train", "demo", "--data", tmp_path, "--run", tmp_path / "run")
    assert code == 3 and "no manifest.json" in text and "collagan pack" in text and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("optim.generator.learning_rate=1", ["unknown key optim.generator.learning_rate", "lr"]),
        ("schedul.batch=4", ["unknown key schedul", "did you mean schedule?"]),
        ("optim.generator.lr=.nan", ["not a finite number"]),
        ("optim.generator.lr=fast", ["optim.generator.lr", "'fast'"]),
        ("schedule.batch=1.5", ["schedule.batch"]),
        ("schedule.batch", ["must read key=value"]),
        ("model.tasks=[inpainting, smile]", ["no task 'smile'", "inpainting, segmentation, landmarks"]),
        ("loss.adv=hinge", ["loss.adv", "'ns', 'minmax' or 'printed'"]),
        ("schedule.batch=50", ["48 samples, one global batch needs 50"]),
    ],
)
def test_configuration_on_the_command_line(
    shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, parts: list
) -> None:
    code, text = run(capsys, "train", "demo", "--data", shards.folder, "--run", tmp_path / "run", "--set", setting)
    assert code == (3 if "50" in setting else 2) and all(part in text for part in parts), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("yaml", "parts"),
    [
        ("schedule:\n  batch: 4\n  bach: 5\n", ["run.yaml:3", "unknown key schedule.bach", "did you mean batch?"]),
        ("seed: 1\nseed: 2\n", ["run.yaml:2", "seed is given twice"]),
        ("seed: !!python/object/apply:os.system ['touch canary']\n", ["run.yaml:1", "tags are not allowed"]),
        ("seed: [1\n", ["run.yaml:2", "not YAML"]),
        ("optim: {generator: {lr: 1e999}}\n", ["run.yaml:1", "not a finite number"]),
        ("optim:\n  generator:\n    lr: -1\n", ["run.yaml:3", "greater than 0"]),
        ("- 1\n", ["must be a mapping"]),
    ],
)
def test_configuration_file(
    shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str], yaml: str, parts: list
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml)
    code, text = run(capsys, "train", path, "--data", shards.folder, "--run", tmp_path / "run")
    assert code == 2 and all(part in text for part in parts), text
    assert not Path("canary").exists()


def test_unknown_preset_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean stable?" in run(capsys, "train", "stabel")[1]
    code, text = run(capsys, "train", "stable", "--model", "M_x")
    assert code == 2 and "M_i, M_s" in text


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["evaluate", tmp_path], ["complete", tmp_path, tmp_path, "--out", tmp_path / "o"]):
        code, text = run(capsys, *command)
        assert code == 2 and "is no run folder" in text
    assert run(capsys, "report", tmp_path)[0] == 3


def test_a_data_set_without_labels_trains_what_it_can(
    copy_of_drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "pack", ROOT / "shards/celeba.yaml", "--root", copy_of_drawn, "--out", tmp_path / "out")[0] == 0
    small = ["--data", tmp_path / "out", "--set", "schedule.steps=1", "--set", "schedule.batch=4"]
    code, text = run(capsys, "train", "demo", *small, "--run", tmp_path / "run")
    assert code == 3 and "no label maps" in text and "--model M_id" in text and not (tmp_path / "run").exists()
    assert run(capsys, "train", "demo", *small, "--run", tmp_path / "run2", "--model", "M_id")[0] == 0
