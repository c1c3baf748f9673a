import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.runs.tensorboard import write_hparams
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.runs.event_files import Curves, curves, events, files
from tests.runs.run_folders import SINKS, lines
from tests.training.small import small

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 3, 2)


def expected(run: Path) -> Curves:
    """Return the curves that metrics.jsonl asks for, in float32 as TensorBoard has it."""
    found: Curves = {}

    def add(tree: dict[str, Any], path: str, step: int) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                add(value, f"{path}{key}/", step)
            elif not isinstance(value, str | bool | list):
                found.setdefault(f"{path}{key}", {})[step] = float(np.float32(value))

    for kind, prefix in (("train", ""), ("eval", "eval/")):
        for line in lines(run, kind):
            add({key: value for key, value in line.items() if key not in ("kind", "step")}, prefix, line["step"])
    return found


def grids(run: Path, fast: bool = False) -> dict[int, bytes]:
    return {step: image.encoded_image_string for step, image in curves(run, "image", fast)["grid"].items()}


def write_steps(run: Path, start: int, end: int) -> None:
    """Write what a start from step `start` on does: train lines, an evaluation each third step, grids."""
    writer = MetricsWriter(run, start, SINKS)
    for step in range(start + 1, end + 1):
        writer.write("train", step, {"loss/total": step / 10, "lr": 1e-3})
        if step % 3 == 0:
            writer.write("eval", step, {"psnr": float(step), "dice": {"mean": step / 100}, "hole": "block"})
        (run / "grid.png").write_bytes(PNG + bytes([step]))
        writer.add_grid(step, run / "grid.png")
    writer.write("event", end, {"event": "interrupted"})
    writer.close()


def test_tensorboard_has_every_number_and_grid_of_a_run(finished):
    shown = curves(finished)
    assert shown == expected(finished)
    assert list(shown["loss/total"]) == [2, 4, 6, 8, 9] and list(shown["eval/dice/mean"]) == [3, 6, 9]
    assert {"lr", "images_per_s", "weighted/inpainting/rec", "eval/psnr", "eval/landmark_error/nose"} <= shown.keys()
    stored = {int(path.stem[-8:]): path.read_bytes() for path in (finished / "grids").glob("*.png")}
    assert grids(finished) == stored and sorted(stored) == [4, 8, 9]
    for image in curves(finished, "image")["grid"].values():
        assert (image.width, image.height) == struct.unpack(">II", image.encoded_image_string[16:24])


@pytest.mark.parametrize("fast", [False, True])
def test_a_continued_run_has_the_curves_of_an_undisturbed_one(tmp_path, fast):
    """Steps 5 and 6 are lost with their checkpoint, as by a kill that cut an event; the second start writes them again."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    for folder in (whole, run):
        folder.mkdir()
    write_steps(whole, 0, 9)
    write_steps(run, 0, 6)
    (first,) = files(run)
    with first.open("ab") as file:
        file.write(struct.pack("<Q", 80))
    write_steps(run, 4, 9)
    assert len(files(run)) == 2
    assert curves(run, fast=fast) == expected(run) == expected(whole) == curves(whole, fast=fast)
    assert grids(run, fast) == {step: PNG + bytes([step]) for step in range(1, 10)}


def test_without_the_library_nothing_is_touched(shards, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = small(shards.folder, log__sinks=SINKS)
    for start in (lambda: train(config, tmp_path / "run", World()), lambda: write_hparams(tmp_path, {}, {})):
        with pytest.raises(ConfigError, match=r"pip install 'collagan_dist\[tensorboard\]'"):
            start()
    assert not list(tmp_path.iterdir())
    MetricsWriter(tmp_path, 0).close()  # which others need not have


def test_nothing_is_written_once_another_start_owns_the_run(tmp_path):
    current = [True]
    writer = MetricsWriter(tmp_path, 0, SINKS, lambda: bool(current))
    writer.write("train", 1, {"loss/total": 1.0})
    current.clear()
    writer.write("train", 2, {"loss/total": 2.0})
    writer.close()
    assert curves(tmp_path) == {"loss/total": {1: 1.0}} == expected(tmp_path)


def test_a_full_disk_is_waited_for(tmp_path, limit_file_size, capsys):
    """Both files get every line when there is room again; pictures do not wait."""
    grid = tmp_path / "grid.png"
    grid.write_bytes(PNG)
    writer = MetricsWriter(tmp_path, 0, SINKS)
    limit_file_size(1000)
    for step in range(1, 101):
        writer.write("train", step, {"loss/total": step / 100})
    writer.add_grid(50, grid)
    limit_file_size(None)
    (path,) = files(tmp_path)
    assert path.stat().st_size == (tmp_path / "metrics.jsonl").stat().st_size == 1000
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"warning: {tmp_path}/metrics.jsonl: File too large; its lines wait until they can be written",
        f"warning: {path}: File too large; its events wait until they can be written",
    ]
    writer.write("train", 101, {"loss/total": 1.01})
    writer.add_grid(101, grid)
    writer.close()
    assert curves(tmp_path) == expected(tmp_path) and len(curves(tmp_path)["loss/total"]) == 101
    assert list(curves(tmp_path, "image")["grid"]) == [101]


PARAMS = dict(zip("abcdef", (2e-4, 64, True, "ns", (0.5, 0.999), None), strict=True))


def test_a_finished_trials_parameters_and_results(tmp_path):
    """As TensorBoard's HParams plugin finds them, once, after the curves. Written again they replace the former ones."""
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
        **PARAMS, "e": "[0.5, 0.999]", "f": "null",
    }  # fmt: skip
    experiment = found["_hparams_/experiment"].experiment
    assert {info.name for info in experiment.hparam_infos} == PARAMS.keys()
    assert found["_hparams_/session_end_info"].session_end_info.status == 1  # success
    results = {"hparam/psnr": {0: 31.25}, "hparam/dice/mean": {0: 0.5}}
    assert {metric.name.tag for metric in experiment.metric_infos} == results.keys() and curves(tmp_path) == results
    MetricsWriter(tmp_path, 7, SINKS).close()
    assert curves(tmp_path) == results and files(tmp_path)[1].name.endswith(".hparams")
