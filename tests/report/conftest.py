"""Folders to report on, each made once: a trained and evaluated run, two sweeps, a reproduction."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import yaml

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.report.sweep_data import SweepData, read_sweep
from collagan_dist.reproduce.driver import _write_tables
from collagan_dist.reproduce.plan import ReproduceOptions
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import POSITIONS, World
from tests.report.page_reader import Page, read_report
from tests.report.simulated_sweep import NSGA2, SimulatedSweep
from tests.reproduce.evaluated import MANIFEST, as_printed, run_of, write_points, write_quality
from tests.training.small import small

CODE, ODD_NAME = '<script>alert("1")</script>', "<script>alert(2)<"


@pytest.fixture(scope="session")
def run(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 steps with an interruption after 8, then evaluations on three kinds of holes."""
    path = tmp_path_factory.mktemp("runs") / "demo"
    config = small(shards.folder, schedule__steps=12, log__grid_every=4, checkpoint__every=4, evaluate__every=6,
                   evaluate__samples=4, evaluate__baselines=4)  # fmt: skip
    train(config, path, World(), StartOptions(stop_at=8))
    train(config, path, World(), StartOptions(command="collagan train small.yaml"))
    score(path, World())
    score(path, World(), ScoreRequest(holes=("O1",), blends=("none", "poisson")))
    return path


@pytest.fixture(scope="session")
def page(run: Path) -> Page:
    return read_report(run)


def alter_run(run, to, rows=(), config=(), **headline) -> Path:
    """Copy a run with more `rows` of metrics.jsonl, other settings and another `headline` in metrics.json."""
    path = Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("report.html")))
    with (path / "metrics.jsonl").open("a") as log:
        log.writelines(json.dumps(row) + "\n" for row in rows)
    settings = yaml.safe_load((path / "config.yaml").read_text())
    for key, value in dict(config).items():
        *sections, name = key.split(".")
        reduce(getitem, sections, settings)[name] = value
    (path / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    metrics = json.loads((path / "metrics.json").read_text())
    (path / "metrics.json").write_text(json.dumps(metrics | headline))
    return path


@pytest.fixture
def altered(run: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the run into the test's folder and change it (see alter_run)."""
    return lambda name="run", **changes: alter_run(run, tmp_path / name, **changes)


@pytest.fixture(scope="session")
def comparison_page(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The run beside a better one that has all that is odd: a new task, code for names, damaged lines, a damaged picture."""
    rows = [
        {"kind": "event", "event": "rollback", "step": 11, "reason": "not finite"},
        {"kind": "event", "event": CODE, "step": 12, CODE: CODE},
        {"kind": "train", "step": 14, "lr": float("nan"), "loss/total": 1.5, "only_here": 1.0, f"loss/{CODE}/rec": 1.0,
         "loss/depth_map/rec": 0.125, "loss/depth_map/edge": 0.5},
        {"kind": "strange"},
    ]  # fmt: skip
    headline = {"psnr_hole": 40.0, "landmark_error": {"mean": 30.0}, "hole": CODE, "dice": {CODE: 0.5, "$x_{$": 0.4}}
    path = tmp_path_factory.mktemp("better") / ODD_NAME
    alter_run(run, path, rows, {"optim.generator.lr": 0.0004}, baselines={CODE: {"psnr": 20.0}}, **headline)
    with (path / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')
    (path / "grids/columns.json").write_text(json.dumps([CODE]))
    (path / "world.json").write_text(json.dumps({CODE: {CODE: CODE}}))
    grid = (path / "grids/step-00000004.png").read_bytes()
    for step in range(16, 57, 4):
        (path / f"grids/step-{step:08d}.png").write_bytes(grid)
    (path / "grids/step-00000060.png").write_bytes(grid[:2000])
    return read_report(run, path)


@pytest.fixture(scope="session")
def asha(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> SimulatedSweep:
    """40 trials under ASHA, two of which fail, and the best confirmed over two seeds."""
    return SimulatedSweep(tmp_path_factory.mktemp("asha") / "sweep", shards.folder, 40, failing=(5, 11), seeds=2).run()


@pytest.fixture(scope="session")
def asha_data(asha: SimulatedSweep) -> SweepData:
    return read_sweep(asha.out)


@pytest.fixture(scope="session")
def asha_page(asha: SimulatedSweep, run: Path) -> Page:
    """The page, with pictures in the folders of the best trial and the paper's."""
    best = json.loads((asha.out / "sweep.json").read_text())["best"]
    for number in (0, best):
        shutil.copytree(run / "grids", asha.folder(number) / "grids")
    return read_report(asha.out)


@pytest.fixture(scope="session")
def nsga2(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> SimulatedSweep:
    """24 trials by three metrics, all of them full-length runs."""
    return SimulatedSweep(tmp_path_factory.mktemp("nsga2") / "sweep", shards.folder, 24, space=NSGA2).run()


@pytest.fixture(scope="session")
def nsga2_data(nsga2: SimulatedSweep) -> SweepData:
    return read_sweep(nsga2.out)


@pytest.fixture(scope="session")
def nsga2_page(nsga2: SimulatedSweep) -> Page:
    return read_report(nsga2.out)


@pytest.fixture(scope="session")
def reproduction(run: Path, shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 1 and 3 and their claims: Table 1 as the paper prints it, of Table 3 one model with two seeds."""
    out = tmp_path_factory.mktemp("reproduction") / "again"
    runs, generator = as_printed(out), np.random.default_rng(0)
    for seed in (0, 1):
        runs.append(run_of(out, "M_id", seed))
        write_points(runs[-1], 2.5 + generator.normal(0, 0.3, (40, 5)))
    runs.append(run_of(out, "M*_i"))
    for hole in POSITIONS:
        write_quality(runs[-1], hole, 0.91 + generator.normal(0, 0.01, 40), 27 + generator.normal(0, 1, 40))
    options = ReproduceOptions(config="stable", data="packed", out=out, tables=(1, 3))
    _write_tables(options, runs, replace(shards, hash=MANIFEST))
    shutil.copy(run / "grids/step-00000012.png", out / "figure4.png")
    return out


@pytest.fixture(scope="session")
def reproduction_page(reproduction: Path) -> Page:
    return read_report(reproduction)
