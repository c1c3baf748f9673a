"""Every file that a command reads, mutated: it is used, or refused by one clear error with its kind's exit code. Never anything else."""

import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collagan_dist.commands.main import main
from collagan_dist.config import strict_yaml
from collagan_dist.config.load import config_to_dict, load_config
from collagan_dist.data.face_square import square_from_landmarks, square_problem
from collagan_dist.data.packing.adopt import Adoption, adopt
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.packing.tar_list import find_tars
from collagan_dist.data.readers.landmark_file import read_landmark_file
from collagan_dist.data.readers.recipe import load_recipe
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.quick_check import quick_check
from collagan_dist.data.shards.shard_reader import DamagedSample, SplitReader
from collagan_dist.data.shards.verify import _deep_problems
from collagan_dist.errors import CollaganError
from collagan_dist.faces.layout import draw_faces
from collagan_dist.inference.export import export
from collagan_dist.inference.parser_onnx import read_class_map
from collagan_dist.inference.score import ScoreRequest, score
from collagan_dist.inference.score_target import Target
from collagan_dist.places import Place
from collagan_dist.plan import rates
from collagan_dist.plan.cost_model import Assumptions, Cluster
from collagan_dist.plan.hardware import LINKS
from collagan_dist.plan.work import Linear, StepWork
from collagan_dist.report import reproduction, run_data, summary, sweep_page, tables
from collagan_dist.report.page import write_report
from collagan_dist.report.sweep_data import read_sweep
from collagan_dist.reproduce.driver import _write_tables
from collagan_dist.reproduce.plan import ReproduceOptions
from collagan_dist.reproduce.slurm import Queue
from collagan_dist.runs.evaluation_name import evaluation_settings, evaluation_variant
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import LeaseRequest, held_by_other_job, process_start_time, this_process
from collagan_dist.runs.metrics_log import MetricsWriter, last_train_step, read_eval_lines
from collagan_dist.runs.model_folder import read_config, read_inference_parameters
from collagan_dist.runs.own_folder import check_own_run
from collagan_dist.runs.place_lease import claim
from collagan_dist.setup import training_order
from collagan_dist.sweep import results, schedule, sweep_table
from collagan_dist.sweep.new_trial import new_trial
from collagan_dist.sweep.prepare import constant_summary
from collagan_dist.sweep.space import read_space
from collagan_dist.sweep.trial import read_trials
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.conftest import ROOT, small_recipe
from tests.faults.damages import rounds
from tests.faults.mutations import mutated, mutated_json, mutated_line
from tests.report.simulated_sweep import SimulatedSweep
from tests.reproduce.evaluated import MANIFEST, as_printed, run_of, write_points
from tests.training.small import small

SECONDS, BYTES = 10, 3 << 29
POINTS = '{"a/photo.jpg": [[1.5, 2], [3, 2], [2, 3], [1, 4], [3, 4]]}'
CLASS_MAP = "classes: {face: [1, 2], hair: [3]}\nsides: subject\ninput: {size: [64, 64], mean: [0.5, 0.5, 0.5]}\n"


def mutated_yaml(content: bytes, at: random.Random) -> bytes:
    return mutated(content, at, strict_yaml.load(content.decode(), "a.yaml")[0])


@dataclass
class Folders:
    """What commands leave and read, each made once."""

    drawn: Path
    shards: Manifest
    run: Path
    page: Path
    exported: Path
    sweep: SimulatedSweep
    reproduction: Path
    files: Path
    adopted: Manifest


@pytest.fixture(scope="session")
def folders(shards: Manifest, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    top = tmp_path_factory.mktemp("mutated")
    data = read_manifest(shutil.copytree(shards.folder, top / "shards"))
    run, out, files = top / "run", top / "again", top / "files"
    changes = {"schedule__steps": 2, "log": {"every": 1, "grid_every": 2}, "evaluate__every": 2, "evaluate__samples": 4}
    config = small(data.folder, **changes)
    train(config, run, World())
    score(run, World(), ScoreRequest(holes=("block",)))
    export(run, top / "exported")
    # Another one whose configuration is short: YAML takes most of the time.
    page = Path(shutil.copytree(run, top / "page"))
    tree = {key: value for key, value in config_to_dict(config).items() if key in ("model", "data", "schedule")}
    (page / "config.yaml").write_text(strict_yaml.dump(tree))
    parent = os.getppid()
    owner = replace(this_process(3, "cafe", "", 1.0), pid=parent, process_start=process_start_time(parent))
    (page / "lease").write_text(owner.text())
    claim(Place(str(files / "copies/page")), RunPaths(page), owner, {}, False).release()
    known = json.loads((page / "copy.json").read_text())
    (page / "copy.json").write_text(json.dumps(known | {"of a newer program": [1, 2, 3]}))
    sweep = SimulatedSweep(top / "sweep", data.folder, 6, failing=(3,), seeds=2).run()
    runs = [*as_printed(out), run_of(out, "M_id")]
    write_points(runs[-1], 2.5 + np.random.default_rng(0).normal(0, 0.3, (40, 5)))
    _write_tables(ReproduceOptions("stable", "packed", out, tables=(1, 3)), runs, replace(data, hash=MANIFEST))
    (out / "slurm.json").write_text('{"M_i": "17", "M_is": "18"}')
    draw_faces(files / "faces", count=1, seed=0, workers=1)
    for name, text in (("map.yaml", CLASS_MAP), ("points.json", POINTS),
                       ("recipe.yaml", (ROOT / "shards/drawn.yaml").read_text()),
                       ("space.yaml", (ROOT / "cluster/sweep.yaml").read_text())):  # fmt: skip
        (files / name).write_text(text)
    for shard in data:
        (files / "tars").mkdir(exist_ok=True)
        shutil.copy(data.folder / shard.name, files / "tars")
    adopted = adopt(Adoption(find_tars([str(files / "tars")])), workers=1).manifest
    return Folders(
        Path(shutil.copytree(drawn, top / "drawn")), data, run, page, top / "exported", sweep, out, files, adopted
    )


def use_manifest(at: Folders) -> None:
    read_first_samples(read_manifest(at.shards.folder))


def use_adopted_manifest(at: Folders) -> None:
    read_first_samples(read_manifest(at.adopted.folder))


def read_first_samples(manifest: Manifest) -> None:
    quick_check(manifest, repair=False)
    training_order(small(Path("shards")), manifest)
    for split in manifest.splits:
        SplitReader(manifest, split).read(0)


def use_index(at: Folders) -> None:
    """The manifest agrees with the index, as where both were forged."""
    use_forged(read_manifest(at.shards.folder))


def use_adopted_index(at: Folders) -> None:
    forged = use_forged(at.adopted)
    # What is found there are problems, and no errors.
    assert all(isinstance(problem, str) for problem in _deep_problems(forged, list(forged)))


def use_forged(manifest: Manifest) -> Manifest:
    shard = manifest.shards("train")[0]
    index = (manifest.folder / shard.index_name).read_bytes()
    forged = replace(manifest, splits={"train": (replace(shard, idx_sha256=hashlib.sha256(index).hexdigest()),)})
    quick_check(forged, repair=False)
    reader = SplitReader(forged, "train")
    for number in range(len(reader)):
        try:
            reader.read(number)
        except DamagedSample:
            assert reader.describe(next(n for n in range(len(reader)) if n != number))
    return forged


def verify_by_command(at: Folders) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(at.shards.folder), "--no-repair"])
    return int(stop.value.code or 0)


def show_run(at: Folders) -> None:
    """All texts of a run's page."""
    run = run_data.read_run(at.page)
    found = [summary.summary(run), summary.headline(run), summary.cards(run), tables.events_table(run)]
    found += [tables.settings_tables(run.config), tables.mapping_table("Data", run.data), tables.evaluations_table(run.evaluations)]  # fmt: skip
    found += [tables.mapping_table("World", run.world), *map(tables.metric_tables, run.evaluations), run.logged]
    assert str(found).encode("utf-8", "backslashreplace")


def log_run(at: Folders) -> None:
    list(read_eval_lines(at.page))
    last_train_step(at.page)
    show_run(at)
    MetricsWriter(at.page, 1).close()  # a start continues the log


def start_in(at: Folders) -> None:
    check_own_run(at.page)
    held_by_other_job(at.page, "slurm:1")
    lease = LeaseRequest(at.page).poll(0)
    if lease is not None:
        lease.release()


def copy_to(at: Folders, new: bool = False) -> None:
    """A start claims the place of its copies, from the folder that made them or from a new one."""
    paths, place = RunPaths(at.files / "new" if new else at.page), Place(str(at.files / "copies/page"))
    if new:
        paths.folder.mkdir(exist_ok=True)
        paths.copy.unlink(missing_ok=True)
    claimed = claim(place, paths, this_process(1, "cafe", "", 1.0), {}, False)
    claimed.check()
    # What was taken for the run's id is one.
    assert json.loads(paths.copy.read_text()) == {"run": claimed.run} and re.fullmatch("[0-9a-f]{16}", claimed.run)


def use_model(at: Folders) -> None:
    config = read_config(at.page)
    evaluation_variant(at.page, evaluation_settings(config), "another")
    check_own_run(at.page)
    Target(at.page, None, "landmarks", "m", "").path("test", "block", "none")


def use_exported(at: Folders) -> None:
    read_inference_parameters(at.exported)


def go_on_with_sweep(at: Folders) -> None:
    prepared = at.sweep.prepared
    constants, trials, plan = constant_summary(prepared), read_trials(at.sweep.out), prepared.plan
    schedule.due_exploits(plan, trials)
    segment = schedule.next_segment(plan, trials)
    if not isinstance(segment, str) and segment.number == len(trials):
        new_trial(plan, trials)
    out = at.files / "results"
    out.mkdir(exist_ok=True)
    results.write_csv(out, plan, trials, True)
    results.write_summary(out, plan, trials, {**constants, "status": "running"})
    results.write_best(out, plan, trials)


def show_sweep(at: Folders) -> None:
    """All texts of a sweep's page."""
    assert str(sweep_page._texts(read_sweep(at.sweep.out), ())).encode("utf-8", "backslashreplace")


def tabulate_sweep(at: Folders) -> None:
    sweep_table.table(at.sweep.out)
    sweep_table.study(at.sweep.out)


def show_reproduction(at: Folders) -> None:
    assert str(reproduction.read_reproduction(at.reproduction)).encode("utf-8", "backslashreplace")


def plan_by_run(at: Folders) -> None:
    link, one = LINKS["loopback"], Linear(0, 1)
    work = StepWork(one, one, one, 1, one, (), ())
    rates.rate_of_run(rates.read_run(at.page), read_config(at.page), work, Cluster(1, 1, link, link), Assumptions())


def use_class_map(at: Folders) -> None:
    found, _ = read_class_map(at.files / "map.yaml")
    found.table(found.largest_index + 1)


def use_landmarks(at: Folders) -> None:
    points = read_landmark_file(at.files / "points.json", "photo")
    for found in points.values():
        square_problem(square_from_landmarks(found), 640, 480)


def pack_again(at: Folders) -> None:
    pack(small_recipe(at.drawn, at.files / "packed"), workers=1)


@dataclass
class Way:
    """How a file (below a folder's path) is read, and the exit codes of its refusals."""

    file: Callable[[Folders], Path]
    use: Callable[[Folders], object]
    codes: set[int]
    mutate: Callable[[bytes, random.Random], bytes] = mutated_json


WAYS = {
    "manifest": Way(lambda at: at.shards.folder / "manifest.json", use_manifest, {3}),
    "manifest, by command": Way(lambda at: at.shards.folder / "manifest.json", verify_by_command, {3}),
    "index": Way(lambda at: at.shards.folder / "train-000000.idx", use_index, {3}, mutated),
    "manifest of adopted tars": Way(lambda at: at.adopted.folder / "manifest.json", use_adopted_manifest, {3}),
    "index of an adopted tar": Way(lambda at: at.adopted.folder / "train-000000.train.samples", use_adopted_index, {3}, mutated_line),
    "bytes of the index of an adopted tar": Way(lambda at: at.adopted.folder / "train-000000.train.samples", use_adopted_index, {3}, mutated),
    "lease": Way(lambda at: at.page / "lease", start_in, {4}, mutated),
    "lease of a place": Way(lambda at: at.files / "copies/page/lease", lambda at: copy_to(at, new=True), {2}, mutated),
    "copy.json": Way(lambda at: at.page / "copy.json", copy_to, {2}),
    "metrics.jsonl": Way(lambda at: at.page / "metrics.jsonl", log_run, set(), mutated_line),
    "metrics.json": Way(lambda at: at.page / "metrics.json", show_run, {3}),
    "evaluation": Way(lambda at: at.page / "evaluation/test-block.json", show_run, {3}),
    "columns.json": Way(lambda at: at.page / "grids/columns.json", show_run, {3}),
    "data.json, of a page": Way(lambda at: at.page / "data.json", show_run, {3}),
    "data.json, of a model": Way(lambda at: at.page / "data.json", use_model, set()),
    "world.json": Way(lambda at: at.page / "world.json", show_run, {3}),
    "world.json, of a measured run": Way(lambda at: at.page / "world.json", plan_by_run, {3}),
    "config of a page": Way(lambda at: at.page / "config.yaml", show_run, {2}, mutated_yaml),
    "config of a run": Way(lambda at: at.page / "config.yaml", use_model, {2}, mutated_yaml),
    "config of an export": Way(lambda at: at.exported / "config.yaml", lambda at: read_config(at.exported), {2}, mutated_yaml),
    "manifest of an export": Way(lambda at: at.exported / "manifest.json", use_exported, {5}),
    "trial": Way(lambda at: at.sweep.out / "trials/t001/trial.json", go_on_with_sweep, {2, 3}),
    "sweep.json": Way(lambda at: at.sweep.out / "sweep.json", go_on_with_sweep, {2, 3}),
    "sweep.json, of a page": Way(lambda at: at.sweep.out / "sweep.json", show_sweep, {3}),
    "sweep.json, of a table": Way(lambda at: at.sweep.out / "sweep.json", tabulate_sweep, {3}),
    "trial, of a table": Way(lambda at: at.sweep.out / "trials/t001/trial.json", tabulate_sweep, {3}),
    "trials.csv": Way(lambda at: at.sweep.out / "trials.csv", show_sweep, {3}, mutated),
    "space": Way(lambda at: at.files / "space.yaml", lambda at: read_space(str(at.files / "space.yaml"), load_config("stable")), {2}, mutated_yaml),
    "recipe": Way(lambda at: at.files / "recipe.yaml", lambda at: load_recipe(str(at.files / "recipe.yaml")), {2}, mutated_yaml),
    "class map": Way(lambda at: at.files / "map.yaml", use_class_map, {2}, mutated_yaml),
    "landmarks of photographs": Way(lambda at: at.files / "points.json", use_landmarks, {3}),
    "claims.json": Way(lambda at: at.reproduction / "claims.json", show_reproduction, {3}),
    "table1.json": Way(lambda at: at.reproduction / "table1.json", show_reproduction, {3}),
    "table3.json": Way(lambda at: at.reproduction / "table3.json", show_reproduction, {3}),
    "controls.json": Way(lambda at: at.reproduction / "controls.json", show_reproduction, {3}),
    "slurm.json": Way(lambda at: at.reproduction / "slurm.json", lambda at: Queue(at.reproduction), {4}),
    "draw.json": Way(lambda at: at.files / "faces/draw.json", lambda at: draw_faces(at.files / "faces", count=1, seed=0, workers=1), {3}),
    ".source.json": Way(lambda at: at.files / "packed/.source.json", pack_again, {2}),
}  # fmt: skip


def outcome(use: Callable[[Folders], object], at: Folders, number: int) -> int:
    """The exit code of a use. Nothing but a CollaganError is caught, and an alarm ends what takes too long."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        code = use(at)
    except CollaganError as error:
        code, text = error.exit_code, str(error)
        assert 20 < len(text) < 4000 and text.encode("utf-8", "surrogateescape"), number
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return code if isinstance(code, int) else 0


@pytest.fixture
def alarm() -> Iterator[None]:
    def too_long(*_: Any) -> None:
        raise AssertionError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    yield
    signal.signal(signal.SIGALRM, before)


@rounds(100, 10_000)
@pytest.mark.parametrize("name", WAYS)
def test_mutated_files_are_used_or_refused(folders, name, rounds, alarm):
    way = WAYS[name]
    if way.use is pack_again:
        way.use(folders)  # for the first time
    file, before = way.file(folders), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content, found = file.read_bytes(), Counter[int]()
    try:
        for number in range(rounds):
            file.write_bytes(way.mutate(content, random.Random(number)))
            found[outcome(way.use, folders, number)] += 1
    finally:
        file.write_bytes(content)
    assert found.keys() <= {0, *way.codes} and found[0] > 0 and (found[0] < rounds or not way.codes), found
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES


@rounds(2, 300)
@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.json", "config of a page", "sweep.json, of a page", "table1.json"])  # fmt: skip
def test_pages_of_mutated_files_are_written_or_refused(folders, name, rounds, alarm, tmp_path):
    way = WAYS[name]
    file = way.file(folders)
    folder = next(one for one in (folders.page, folders.sweep.out, folders.reproduction) if file.is_relative_to(one))
    content = file.read_bytes()
    try:
        for number in range(rounds):
            file.write_bytes(way.mutate(content, random.Random(number)))
            code = outcome(lambda _, page=tmp_path / "page.html": write_report([folder], page), folders, number)
            assert code in {0, *way.codes}
    finally:
        file.write_bytes(content)


def test_an_empty_recipe_in_a_manifest_is_refused(folders, tmp_path, capsys):
    data = json.loads((folders.shards.folder / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(data | {"recipe": {}}))
    for words in (
        ["verify", str(tmp_path)],
        ["train", "demo", "--data", str(tmp_path), "--run", str(tmp_path / "run")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        said = capsys.readouterr().err
        assert stop.value.code == 3 and f"{tmp_path / 'manifest.json'}: recipe.store is missing" in said
