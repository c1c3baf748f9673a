"""log.sinks: TensorBoard has what metrics.jsonl has, of continued runs too, and disturbs nothing."""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError
from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.runs.tensorboard import write_hparams
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.runtime.event_files import Curves, curves, events, files
from tests.training.small import equal, small, weights

SINKS = ["jsonl", "tensorboard"]
# Lines at 2, 4, 6 and 7, evaluations at 3, 6 and 7, grids at 4 and 7.
TOLD = {"log": {"every": 2, "grid_every": 4, "sinks": SINKS}, "evaluate__every": 3, "evaluate__samples": 4}
NOT_REPEATED = ("images_per_s", "data_wait_share", "checkpoint_wait_share")  # what a clock says


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def expected(run: Path) -> Curves:
    """What metrics.jsonl says that there is to be seen, in float32 as TensorBoard has it."""
    found: Curves = {}

    def put(tree: dict[str, Any], path: str, step: int) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                put(value, f"{path}{key}/", step)
            elif not isinstance(value, str | bool | list):
                found.setdefault(f"{path}{key}", {})[step] = float(np.float32(value))

    for line in lines(run):
        kind, step = line.pop("kind"), line.pop("step")
        if kind != "event":
            put(line, {"train": "", "eval": "eval/"}[kind], step)
    return found


def repeatable(shown: Curves) -> Curves:
    return {tag: points for tag, points in shown.items() if tag not in NOT_REPEATED}


def grids(run: Path) -> dict[int, bytes]:
    return {int(path.stem[-8:]): path.read_bytes() for path in (run / "grids").glob("*.png")}


@pytest.fixture(scope="module")
def whole(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(small(shards.folder, **TOLD), run, World())
    return run


@pytest.mark.parametrize("fast", [False, True])
def test_tensorboard_has_every_number_of_metrics_jsonl(whole: Path, fast: bool) -> None:
    shown = curves(whole, fast=fast)
    assert shown == expected(whole)
    assert list(shown["loss/total"]) == [2, 4, 6, 7] and list(shown["eval/dice/mean"]) == [3, 6, 7]
    assert {"lr", "images_per_s", "weighted/inpainting/rec", "eval/psnr", "eval/landmark_error/nose"} <= shown.keys()


def test_grids_are_shown_as_they_were_written(whole: Path) -> None:
    shown = curves(whole, "image")["grid"]
    assert {step: image.encoded_image_string for step, image in shown.items()} == grids(whole)
    assert list(shown) == [4, 7]
    for image in shown.values():
        assert (image.width, image.height) == struct.unpack(">II", image.encoded_image_string[16:24])


def test_it_teaches_nothing_else_and_is_written_only_when_asked_for(
    shards: Manifest, whole: Path, tmp_path: Path
) -> None:
    log = {key: value for key, value in TOLD["log"].items() if key != "sinks"}  # type: ignore[attr-defined]
    train(small(shards.folder, **{**TOLD, "log": log}), tmp_path, World())
    assert equal(weights(whole, 7), weights(tmp_path, 7))
    assert repeatable(expected(whole)) == repeatable(expected(tmp_path)) and not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("fast", [False, True])
def test_a_continued_runs_curves_are_those_of_one_that_was_not_stopped(
    shards: Manifest, whole: Path, tmp_path: Path, fast: bool
) -> None:
    """Steps 5 and 6 are lost with their checkpoint, as by a kill; line and evaluation of step 6, and a last line cut short, were there."""
    train(small(shards.folder, **TOLD, checkpoint__every=4, schedule__steps=6), tmp_path, World())
    for file in (tmp_path / "checkpoints/step-00000006").iterdir():
        file.write_bytes(b"")
    (first,) = files(tmp_path)
    lost = [event.step for event in events(first) if event.HasField("summary") and event.step > 4]
    assert set(lost) == {6}
    with first.open("ab") as file:
        file.write(struct.pack("<Q", 80))
    train(small(shards.folder, **TOLD), tmp_path, World())
    assert len(files(tmp_path)) == 2
    shown = curves(tmp_path, fast=fast)
    assert shown == expected(tmp_path) and repeatable(shown) == repeatable(curves(whole, fast=fast))
    pictures = curves(tmp_path, "image", fast)["grid"]
    assert {step: image.encoded_image_string for step, image in pictures.items()} | {6: b""} == grids(tmp_path) | {
        6: b""
    }


def test_what_was_written_at_the_step_of_the_checkpoint_stays(shards: Manifest, whole: Path, tmp_path: Path) -> None:
    """Nothing is lost between a start and the next: also where lines are at the very step of the checkpoint, and in starts of one second."""
    for steps in (2, 4, 6, 7):
        train(small(shards.folder, **{**TOLD, "evaluate__every": 0, "schedule__steps": steps}), tmp_path, World())
    assert len(files(tmp_path)) == 4 and list(curves(tmp_path)["loss/total"]) == [2, 4, 6, 7]
    assert curves(tmp_path)["loss/total"] == curves(whole)["loss/total"]


def test_a_run_goes_on_with_other_sinks(shards: Manifest, tmp_path: Path) -> None:
    for steps, sinks in ((2, ["jsonl"]), (4, ["tensorboard"]), (7, [])):
        train(small(shards.folder, schedule__steps=steps, log={"every": 2, "sinks": sinks}), tmp_path, World())
    assert [line["step"] for line in lines(tmp_path) if line["kind"] == "train"] == [2, 4, 6, 7]
    assert list(curves(tmp_path)["loss/total"]) == [4]


def test_of_two_ranks_the_first_writes(shards: Manifest, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(to_yaml(small(shards.folder, **{**TOLD, "schedule__steps": 4})))
    collagan("train", config, "--run", tmp_path / "run", ranks=2)
    assert len(files(tmp_path / "run")) == 1 and curves(tmp_path / "run") == expected(tmp_path / "run")


def test_an_unknown_sink_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"log\.sinks\.0: Input should be 'jsonl' or 'tensorboard' \(given: 'tensorbord'\)"
    ):
        load_config("demo", sets=["log.sinks=[tensorbord]"])


def test_without_the_library_nothing_is_touched(
    shards: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"log\.sinks: .*pip install 'collagan_dist\[tensorboard\]'"):
        train(small(shards.folder, log__sinks=SINKS), tmp_path / "run", World())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"pip install 'collagan_dist\[tensorboard\]'"):
        write_hparams(tmp_path, {}, {})
    train(small(shards.folder, schedule__steps=1), tmp_path / "run", World())  # which others need not have


def test_nothing_is_written_once_another_start_owns_the_run(tmp_path: Path) -> None:
    mine = True
    metrics = MetricsWriter(tmp_path, 0, SINKS, lambda: mine)
    metrics.write("train", 1, {"loss/total": 1.0})
    mine = False
    metrics.write("train", 2, {"loss/total": 2.0})
    metrics.close()
    assert curves(tmp_path) == {"loss/total": {1: 1.0}} == expected(tmp_path)
    (tmp_path / "late").mkdir()
    MetricsWriter(tmp_path / "late", 0, SINKS, lambda: mine).close()
    assert not (tmp_path / "late/tensorboard").exists()


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Call it with the bytes that a file may have: a write beyond fails in the middle, as on a full disk; None: any number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    limit(None)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_once_and_waited_for(
    tmp_path: Path, small_files: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "grid.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 3, 2))
    metrics = MetricsWriter(tmp_path, 0, SINKS)
    small_files(1000)
    for step in range(1, 101):
        metrics.write("train", step, {"loss/total": step / 100})
    metrics.add_grid(50, picture)
    small_files(None)
    written = capsys.readouterr().err
    (path,) = files(tmp_path)
    assert path.stat().st_size == (tmp_path / "metrics.jsonl").stat().st_size == 1000
    assert sorted(written.splitlines()) == [
        f"warning: {tmp_path}/metrics.jsonl: File too large; its lines wait until they can be written",
        f"warning: {path}: File too large; its events wait until they can be written",
    ]
    metrics.write("train", 101, {"loss/total": 1.01})
    metrics.add_grid(101, picture)
    metrics.close()
    assert curves(tmp_path) == expected(tmp_path) and len(curves(tmp_path)["loss/total"]) == 101
    assert list(curves(tmp_path, "image")["grid"]) == [101]


def test_without_room_for_the_folder_training_goes_on(
    shards: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    assert train(small(shards.folder, **TOLD), tmp_path, World()) == 7
    told = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert len(told) == 2 and "its events wait" in told[0] and told[1].endswith("9 events could not be written")
    assert len([line for line in lines(tmp_path) if line["kind"] == "train"]) == 4


PARAMS = {
    "optim.generator.lr": 2e-4,
    "schedule.batch": 64,
    "deterministic": True,
    "loss.adv": "ns",
    "betas": (0.5, 0.999),
    "hole": None,
}


def test_a_finished_trials_parameters_and_results(whole: Path, tmp_path: Path) -> None:
    """As TensorBoard's HParams plugin finds them, once, after the curves; written anew they replace the former."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    MetricsWriter(tmp_path, 0, SINKS).close()
    write_hparams(tmp_path, PARAMS, {"psnr": 1.0})
    write_hparams(tmp_path, PARAMS, {"psnr": 31.25, "dice": {"mean": 0.5}, "worst": float("nan"), "hole": "block"})
    assert len(files(tmp_path)) == 2 and files(tmp_path)[1].name.endswith(".hparams")
    found = {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in events(files(tmp_path)[1])
        for value in event.summary.value
        if value.metadata.plugin_data.plugin_name == "hparams"
    }
    start = found["_hparams_/session_start_info"].session_start_info.hparams
    assert {key: getattr(value, value.WhichOneof("kind")) for key, value in start.items()} == {
        **PARAMS, "betas": "[0.5, 0.999]", "hole": "null",
    }  # fmt: skip
    experiment = found["_hparams_/experiment"].experiment
    tags = {metric.name.tag for metric in experiment.metric_infos}
    assert {info.name for info in experiment.hparam_infos} == PARAMS.keys()
    assert found["_hparams_/session_end_info"].session_end_info.status == 1  # success
    assert (
        curves(tmp_path) == {"hparam/psnr": {0: 31.25}, "hparam/dice/mean": {0: 0.5}}
        and tags == curves(tmp_path).keys()
    )
    MetricsWriter(tmp_path, 7, SINKS).close()
    assert curves(tmp_path).keys() == tags and files(tmp_path)[1].name.endswith(".hparams")
