"""Bad input: one error that says what, where and how to mend, the right exit code, and nothing half-written."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.commands.main import main
from tests.conftest import ROOT


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str]:
    """(exit code, what went to stderr) of a command in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    return int(stop.value.code or 0), capsys.readouterr().err


LANDMARKS, SPLITS = "Anno/list_landmarks_celeba.txt", "Eval/list_eval_partition.txt"
LABELS = "Label/img_celeba/000004.png"


def edit(file: str, pattern: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / file).write_text(re.sub(pattern, text, (root / file).read_text(), count=1))


@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        (edit(LANDMARKS, "000004.jpg.*\n", ""), [f"{LANDMARKS}:1", "announces 60", "lists 59"]),
        (edit(LANDMARKS, "000002.jpg ", "000002.jpg x"), [f"{LANDMARKS}:4", "000002.jpg", "10 integers"]),
        (edit(LANDMARKS, r"(000003.jpg.*) \S+\n", r"\1\n"), [f"{LANDMARKS}:5", "000003.jpg", "10 integers"]),
        (edit(LANDMARKS, "000003.jpg", "000002.jpg"), [f"{LANDMARKS}:5", "000002.jpg", "second time"]),
        (edit(SPLITS, "000005.jpg 0\n", ""), [SPLITS, "000005.jpg is missing"]),
        (edit(SPLITS, "000005.jpg 0", "000005.jpg 7"), [f"{SPLITS}:5", "000005.jpg", "0 train, 1 valid, 2 test"]),
        (lambda root: (root / LANDMARKS).unlink(), [LANDMARKS, "is missing; copy it"]),
        (
            lambda root: cv2.imwrite(str(root / LABELS), np.pad(np.full((3, 5), 19, np.uint8), ((0, 437), (0, 355)))),
            ["000004.png", "label 19", "0..10", "15 pixels"],
        ),
        (
            lambda root: cv2.imwrite(str(root / LABELS), np.zeros((50, 40), np.uint8)),
            ["000004.png", "40x50", "360x440"],
        ),
        (lambda root: (root / LABELS).unlink(), ["000004.png", "is missing"]),
        (lambda root: shutil.rmtree(root / "Img"), ["Img/img_celeba", "no such folder"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_a_damaged_data_set(copy_of_drawn, tmp_path, capsys, damage, parts):
    damage(copy_of_drawn)
    out = tmp_path / "packed"
    code, text = run(capsys, "pack", ROOT / "shards/drawn.yaml", "--root", copy_of_drawn, "--out", out, "--workers", 2)
    assert code == 3 and all(part in text for part in parts) and "Traceback" not in text, text
    assert not (out / "manifest.json").exists() and not list(out.rglob("*.partial"))


def test_folder_that_is_no_data_set(tmp_path, capsys):
    code, text = run(capsys, "train", "demo", "--data", tmp_path, "--run", tmp_path / "run")
    assert code == 3 and "no manifest.json" in text and "collagan pack" in text and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "code", "parts"),
    [
        ("optim.generator.learning_rate=1", 2, ["there is no key optim.generator.learning_rate", "lr"]),
        ("optim.generator.lr=fast", 2, ["optim.generator.lr", "'fast'"]),
        ("schedule.batch", 2, ["must read key=value"]),
        ("model.tasks=[inpainting, smile]", 2, ["no task 'smile'", "inpainting, segmentation, landmarks"]),
        ("loss.adv=hinge", 2, ["loss.adv", "'ns', 'minmax' or 'printed'"]),
        ("log.sinks=[tensorbord]", 2, ["log.sinks.0", "'jsonl', 'tensorboard', 'wandb' or 'mlflow'"]),
        ("schedule.batch=50", 3, ["48 samples, one global batch needs 50"]),
    ],
)
def test_configuration_on_the_command_line(shards, tmp_path, capsys, setting, code, parts):
    found, text = run(capsys, "train", "demo", "--data", shards.folder, "--run", tmp_path / "run", "--set", setting)
    assert found == code and all(part in text for part in parts) and not (tmp_path / "run").exists(), text


@pytest.mark.parametrize(
    ("yaml", "parts"),
    [
        ("schedule:\n  batch: 4\n  bach: 5\n", ["run.yaml:3", "unknown key schedule.bach", "did you mean batch?"]),
        ("seed: !!python/object/apply:os.system ['touch canary']\n", ["run.yaml:1", "tags are not allowed"]),
        ("optim:\n  generator:\n    lr: -1\n", ["run.yaml:3", "needs more than 0, is -1"]),
        ("seed: 1\nsched:\n  batch: 4\n", ["run.yaml:2", "unknown key sched", "did you mean schedule?"]),
        ("seed: 1\nlr: 3\n", ["run.yaml:2", "unknown key lr", "did you mean optim.generator.lr?"]),
        ("loss:\n  weights:\n    landmarks:\n      advv: 1\n      rec: 2\n", ["run.yaml:4", "did you mean adv?"]),
        ("schedule:\n  batch: '8'\n", ["run.yaml:2", "schedule.batch", "needs an integer, is '8'"]),
        ("schedule:\n  batch: 8.0\n", ["run.yaml:2", "schedule.batch: needs an integer, is 8.0"]),
        ("schedule:\n  batch: true\n", ["run.yaml:2", "schedule.batch: needs an integer, is true"]),
        ("deterministic: 1\n", ["run.yaml:1", "deterministic", "needs true or false"]),
        ("deterministic: on\n", ["run.yaml:1", "deterministic", "needs true or false"]),
        ("data: [1]\n", ["run.yaml:1", "data"]),
        ("optim:\n  generator:\n    lr: .nan\n", ["run.yaml:3", ".nan is not a finite number"]),
        ("optim:\n  generator: {lr: -.INF}\n", ["run.yaml:2", "-.INF is not a finite number"]),
        ("optim:\n  ema: 1e999\n", ["run.yaml:2", "1e999 is not a finite number"]),
        ("seed: 1\ndata: !!map\n  window: 3\n", ["run.yaml:2", "tags are not allowed"]),
        ("seed: 1\nlog:\n  sinks: !!python/tuple [jsonl]\n", ["run.yaml:3", "tags are not allowed"]),
        ("seed: !!int 1\n", ["run.yaml:1", "tags are not allowed"]),
        ("optim: &a\n  ema: 0.5\n", ["run.yaml:1", "anchors"]),
        (
            "seed: 1\nschedule:\n  batch: 4\n  steps: 3\n  batch: 8\n",
            ["run.yaml:5", "key schedule.batch is given twice"],
        ),
        ("seed: 1\nlog: {every: 2}\nseed: 2\n", ["run.yaml:3", "key seed is given twice"]),
    ],
)
def test_configuration_file(tmp_path, capsys, yaml, parts):
    path = tmp_path / "run.yaml"
    path.write_text(yaml)
    code, text = run(capsys, "train", path, "--run", tmp_path / "run")
    assert code == 2 and all(part in text for part in parts) and not Path("canary").exists(), text


@pytest.mark.parametrize("command", ["train", "sweep", "reproduce"])
def test_row_14_a_refused_configuration_touches_no_device(shards, tmp_path, command):
    """Not even torch is loaded, which would ask for devices."""
    (tmp_path / "run.yaml").write_text("schedule:\n  bach: 5\n")
    (tmp_path / "space.yaml").write_text(
        "{metric: psnr, scheduler: none, search: random, space: {optim.ema: {choice: [0.5]}}}"
    )
    code = "import sys\nfrom collagan_dist.commands.main import main\ntry: main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    where = {
        "train": ["--run", "out"],
        "sweep": ["--space", "space.yaml", "--out", "out"],
        "reproduce": ["--out", "out"],
    }[command]
    words = [command, "run.yaml", "--data", str(shards.folder), *where]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n") and "run.yaml:2: unknown key schedule.bach" in done.stderr


def test_unknown_model(capsys):
    code, text = run(capsys, "train", "stable", "--model", "M_x")
    assert code == 2 and "M_i, M_s" in text


def test_no_run_folder(tmp_path, capsys):
    for command in (["evaluate", tmp_path], ["complete", tmp_path, tmp_path, "--out", tmp_path / "o"]):
        code, text = run(capsys, *command)
        assert code == 2 and "is no run folder" in text
    assert run(capsys, "report", tmp_path)[0] == 3


def test_a_data_set_without_labels_trains_what_it_can(copy_of_drawn, tmp_path, capsys):
    assert run(capsys, "pack", ROOT / "shards/celeba.yaml", "--root", copy_of_drawn, "--out", tmp_path / "out")[0] == 0
    small = ["--data", tmp_path / "out", "--set", "schedule.steps=1", "--set", "schedule.batch=4"]
    code, text = run(capsys, "train", "demo", *small, "--run", tmp_path / "run")
    assert code == 3 and "no label maps" in text and "--model M_id" in text and not (tmp_path / "run").exists()
    assert run(capsys, "train", "demo", *small, "--run", tmp_path / "run2", "--model", "M_id")[0] == 0
