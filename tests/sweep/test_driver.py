import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import collagan_dist as cd
from collagan_dist.config.load import config_to_dict, get_nested, load_config
from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.stop_request import StopRequest
from collagan_dist.errors import CheckpointError, DataError, NumericError
from collagan_dist.runs.metrics_log import MetricsWriter
from collagan_dist.sweep import schedule, search
from collagan_dist.sweep.driver import SweepController
from collagan_dist.sweep.new_trial import trial_config
from collagan_dist.sweep.prepare import SweepOptions, constant_summary, prepare
from collagan_dist.sweep.resources import TrialResources
from collagan_dist.sweep.room import Room
from collagan_dist.sweep.schedule import SweepPlan
from collagan_dist.sweep.trial import Trial, read_trials, trial_dir, write_trial
from tests.conftest import collagan
from tests.sweep.simulation import RUNGS, Simulation, a_plan, stored
from tests.sweep.small import BATCH, FIRST, HALVING, SECOND, STEPS, Sweep, write
from tests.sweep.spaces import LR, space
from tests.training.small import equal, weights


@pytest.fixture(scope="module")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Six trials, halved twice, and the winner again with another seed."""
    sweep = Sweep(tmp_path_factory.mktemp("undisturbed"), shards.folder, HALVING, "--trials", 6, "--seeds", 1)
    sweep.run()
    return sweep


def test_result_files_of_a_sweep(undisturbed):
    rows = undisturbed.rows()
    assert [row["role"] for row in rows] == ["paper", *["search"] * 5, "confirm", "confirm"]
    assert sorted(int(row["steps"]) for row in rows[:6]) == [FIRST] * 4 + [SECOND, STEPS]
    assert [row["status"] for row in rows if int(row["steps"]) == STEPS] == ["done"] * 3
    for row in rows:  # as many steps as its samples say, λ on the simplex
        assert int(row["samples"]) == BATCH * int(row["steps"])
    lambdas = [[float(row[f"loss.weights.{task}.adv"]) for task in TASK_WEIGHTS] for row in rows]
    assert lambdas[0] == [0.8, 0.1, 0.1] and [sum(one) for one in lambdas] == pytest.approx([1] * len(rows))
    assert {row["seed"] for row in rows[6:]} == {"1"}
    (winner,) = [row for row in rows[:6] if row["status"] == "done"]
    table, study = cd.sweep_results(undisturbed.out), cd.sweep_study(undisturbed.out)
    assert list(table["steps"]) == [int(row["steps"]) for row in rows] and len(study.trials) == 6
    assert (
        study.best_value == float(winner["psnr_hole"])
        and (table["path"].map(Path) / "config.yaml").map(Path.is_file).all()
    )
    best = load_config(str(undisturbed.out / "best.yaml"))
    assert str(best.optim.generator.lr) == winner["optim.generator.lr"] and best.schedule.steps == STEPS
    assert "<svg" in (undisturbed.out / "report.html").read_text()


def test_a_stopped_trial_keeps_one_checkpoint(undisturbed):
    """The one that it would go on from, though it saved every other step; and nothing that was being removed."""
    for number, row in enumerate(undisturbed.rows()):
        kept = [path.name for path in (undisturbed.trial(number) / "checkpoints").iterdir()]
        assert kept == [f"step-{int(row['steps']):08d}"]


def test_no_step_is_trained_twice(undisturbed):
    """A trial that goes on from a rung goes on from its checkpoint, and only as far as it is promoted."""
    for number, row in enumerate(undisturbed.rows()):
        segments = {FIRST: [0], SECOND: [0, FIRST], STEPS: [0, FIRST, SECOND] if number < 6 else [0]}[int(row["steps"])]
        assert [step for _, step in undisturbed.starts(number)] == segments
        assert [line["step"] for line in undisturbed.lines(number, "eval")] == [*segments[1:], int(row["steps"])]


def test_a_trial_equals_an_ordinary_run(undisturbed, tmp_path):
    (number,) = [int(row["trial"]) for row in undisturbed.rows()[:6] if row["status"] == "done"]
    collagan("train", undisturbed.trial(number) / "config.yaml", "--run", tmp_path / "run")
    assert equal(weights(tmp_path / "run", STEPS), weights(undisturbed.trial(number), STEPS))


def test_row_32_the_driver_is_killed(undisturbed, shards, tmp_path):
    """kill -9 in the middle of a segment while trials wait at a rung; the same command ends with the same sweep."""
    sweep = Sweep(tmp_path, shards.folder, HALVING, "--trials", 6, "--seeds", 1)
    with sweep.started() as process:
        sweep.until(process, lambda: any(sweep.saved(number) >= SECOND + 4 for number in range(6)))
    finished = {number: sweep.starts(number) for number in range(6) if sweep.saved(number) == FIRST}
    for number in finished:  # as a kill leaves them that comes before the former ones are removed
        for name in ("step-00000002", ".old-00000004"):
            shutil.copytree(
                sweep.trial(number) / f"checkpoints/step-{FIRST:08d}", sweep.trial(number) / "checkpoints" / name
            )
    sweep.run()
    assert all(len(list((sweep.trial(number) / "checkpoints").iterdir())) == 1 for number in finished)
    assert len(finished) == 4 and all(sweep.starts(number) == starts for number, starts in finished.items())
    rows, expected = ([{**row, "restarts": "0"} for row in one.rows()] for one in (sweep, undisturbed))
    assert rows == expected
    for number, row in enumerate(rows):
        step = int(row["steps"])
        assert equal(weights(sweep.trial(number), step), weights(undisturbed.trial(number), step))
    assert not (sweep.out / ".tune").exists()


@pytest.mark.full
def test_pbt_losers_continue_from_winners(shards, tmp_path):
    """Their log names what changed; each exploit is carried out once. Kills of PBT are simulated in test_schedule.py."""
    space = {**HALVING, "scheduler": "pbt", "pbt": {"every": 6 * BATCH, "quantile": 0.34}}
    sweep = Sweep(tmp_path, shards.folder, space, "--trials", 4, schedule__steps=12)
    sweep.run()
    assert [row["status"] for row in sweep.rows()] == ["done"] * 4
    scores = [{line["step"]: line["psnr_hole"] for line in sweep.lines(number, "eval")} for number in range(4)]
    assert [sorted(one) for one in scores] == [[6, 12]] * 4
    lineages = [json.loads((sweep.trial(number) / "trial.json").read_text())["lineage"] for number in range(4)]
    ((loser, (entry,)),) = [(number, lineage) for number, lineage in enumerate(lineages) if lineage]
    assert entry["at"] == 6 * BATCH and scores[entry["from"]][6] >= scores[loser][6]
    assert scores[loser][6] == min(one[6] for one in scores)
    changed = [[line["changed"] for line in sweep.lines(n, "event") if "changed" in line] for n in range(4)]
    assert [len(one) for one in changed] == [len(one) for one in lineages]
    assert any("optim.generator.lr" in change for change in changed[loser][0])


@pytest.mark.parametrize("name", ["none", "asha"])
@pytest.mark.parametrize("confirm", [0, 2])
def test_a_sweep_can_grow(name, confirm):
    """New trials are searched, what was trained stays, and the confirmed pair is the present best one and the paper's."""
    for seed in range(2):
        small = a_plan(name, 6, confirm=confirm, seed=seed)
        sweep = Simulation(small, slots=2).run()
        before = list(sweep.trials)
        sweep.plan, sweep.trials = replace(small, trials=15), [stored(trial) for trial in sweep.trials]
        sweep.run()
        assert len(sweep.searched) == 15 and len({repr(trial.values) for trial in sweep.searched}) == 15
        pairs = zip(sweep.trials, before, strict=False)
        assert all((now.values, now.role) == (then.values, then.role) for now, then in pairs)
        winner = schedule.best_trial(sweep.plan, sweep.trials)
        again = [(trial.values, trial.seed) for trial in sweep.trials if trial.role == "confirm"]
        for one in (winner, sweep.trials[0]) if winner.role != "paper" else ():
            assert [s for values, s in again if values == one.values] == [seed + 1 + k for k in range(confirm)]
        assert len(again) == len({repr(one) for one in again})


def test_confirming_trials_do_not_change_what_is_searched():
    """The same values as in a sweep that had that many trials from the beginning."""
    whole = Simulation(a_plan("none", 12)).run()
    grown = Simulation(a_plan("none", 6, confirm=2)).run()
    assert len(grown.trials) == 10
    grown.plan = a_plan("none", 12, confirm=2)
    grown.run()
    assert [trial.values for trial in grown.searched] == [trial.values for trial in whole.searched]


def test_each_point_of_a_grid_is_tried_once_after_the_initial_points():
    keys = "{loss.weights.inpainting.rec: {choice: [1, 10, 1000]}, loss.adv: {choice: [ns, minmax]}}"
    grid = space(f"metric: psnr\nsearch: grid\nspace: {keys}")
    sweep = Simulation(SweepPlan(grid, 4, RUNGS[-1], RUNGS[-1:], 0, 1)).run()
    sweep.plan = replace(sweep.plan, trials=7)
    sweep.run()
    assert [trial.role for trial in sweep.searched] == ["paper"] + 6 * ["search"]
    assert [trial.values for trial in sweep.searched[1:]] == grid.grid()


@pytest.mark.parametrize("head", ["metric: psnr\nsearch: tpe\nscheduler: asha", "metric: [psnr, dice]\nsearch: nsga2"])
def test_learning_samplers_complete_a_sweep(head):
    keys = "{loss.weights.*.rec: {loguniform: [1, 1000]}, loss.weights.*.adv: {simplex: 1}}"
    rungs = RUNGS if "asha" in head else RUNGS[-1:]
    sweep = Simulation(
        SweepPlan(space(f"{head}\nspace: {keys}"), 30, rungs[-1], rungs, 0), 1, 4, failing=0.1, lost=0.05, killed=0.05
    ).run()
    assert len({repr(trial.values) for trial in sweep.trials}) == 30
    assert any(trial.notes for trial in sweep.trials)


LEARNING = {
    "tpe, two metrics": "metric: [psnr, landmark_error]\nsearch: tpe\nscheduler: asha",
    "nsga2, stopped early": "metric: [psnr, landmark_error]\nsearch: nsga2\nscheduler: asha",
    "constraint and repeats": "metric: psnr\nsearch: tpe\nscheduler: asha\nrepeats: 2\nconstraints: {landmark_error: {max: 1}}",
}


@pytest.mark.parametrize("head", LEARNING)
def test_a_killed_search_proposes_what_an_uninterrupted_one_does(head):
    """Trial for trial, with what the sampler notes; start points first. The metrics depend on the values and the seed alone."""
    keys = "{loss.weights.*.rec: {loguniform: [1, 1000]}, model.noise: {uniform: [0, 0.9]}}"
    where = space(f"{LEARNING[head]}\nstart: [{{model.noise: 0.25}}]\nspace: {keys}")
    plan = SweepPlan(where, 24, RUNGS[-1], RUNGS[::3], 3)

    def objective(trial: Trial, samples: int) -> dict[str, float]:
        noise = trial.values["model.noise"]
        own = search.generator_for(trial.seed, int(1e9 * noise), samples).random()
        return {"psnr": noise + own / 9, "landmark_error": 2 * noise**2 + own}

    whole = Simulation(plan, objective=objective).run()
    killed = Simulation(plan, chance=5, killed=0.4, objective=objective).run()
    assert killed.trials == whole.trials and len(killed.asked) > len(whole.asked)
    assert [trial.role for trial in whole.trials if trial.repeat_of is None] == ["paper", "start", *["search"] * 22]
    assert whole.trials[1 * where.spec.repeats].values["model.noise"] == 0.25
    if "nsga2" in head:  # whole generations, though few trials are trained to the end
        generations = [trial.notes["NSGAIISampler:generation"] for trial in whole.trials if trial.notes]
        assert generations == sorted(generations) and generations[-1] == 3


@pytest.mark.parametrize("kind", [DataError, CheckpointError])
def test_a_node_without_shards_or_with_a_bad_disk_costs_no_further_trial(shards, tmp_path, kind):
    """One whose segment was on its way there is trained elsewhere."""
    config, file = write(tmp_path, shards.folder, HALVING)
    prepared = prepare(SweepOptions(str(config), str(file), str(shards.folder), tmp_path / "out", trials=6))
    (tmp_path / "out").mkdir()
    facts = {"Alive": True, "NodeManagerHostname": "n", "NodeManagerAddress": "a", "Resources": {"CPU": 9.0}}
    ray = SimpleNamespace(nodes=lambda: [{**facts, "NodeID": one} for one in "ab"])
    room = Room(ray, TrialResources())
    with StopRequest() as stop:
        sweep = SweepController(prepared, constant_summary(prepared), room, stop, lambda controller: None)
    numbers = [sweep.next_segment()[0] for _ in range(6)]
    for number, node in zip(numbers, "aaaaab", strict=True):
        sweep.segment_ended(number, {"failed": [kind.exit_code, "of this node"]}, [node])
    code = kind.exit_code
    assert [trial.failure and trial.failure[0] for trial in sweep.trials] == [code, code, code, None, None, code]
    assert [trial.restarts for trial in sweep.trials] == [0, 0, 0, 1, 1, 0] and list(room.left_out) == ["a"]
    assert sweep.next_segment()[0] == 3


@pytest.mark.full
def test_a_real_sweep_of_repeats_under_a_constraint(shards, tmp_path):
    """Three configurations with two seeds each: the best keeps the constraint, and its two trials differ by the seed alone."""
    key = "optim.generator.lr"
    space_ = {
        **HALVING,
        "repeats": 2,
        "start": [{key: 0.002}],
        "constraints": {"landmark_error": {"max": 1000.0}, "psnr": {"min": 0.0}},
    }
    sweep = Sweep(tmp_path, shards.folder, space_, "--trials", 3)
    sweep.run()
    rows = sweep.rows()
    assert [(row["configuration"], row["seed"]) for row in rows] == [(str(n - n % 2), str(n % 2)) for n in range(6)]
    assert [row["role"] for row in rows] == ["paper"] * 2 + ["start"] * 2 + ["search"] * 2 and rows[2][key] == "0.002"
    summary = json.loads((sweep.out / "sweep.json").read_text())
    best = [row for row in rows if int(row["configuration"]) == summary["best"]]
    assert [int(row["steps"]) for row in best] == [STEPS] * 2 and summary["lead"] is None  # none other came so far
    assert not equal(weights(sweep.trial(summary["best"]), STEPS), weights(sweep.trial(summary["best"] + 1), STEPS))
    head = (sweep.out / "best.yaml").read_text()
    assert "over 2 seeds" in head and not any(row["breaks"] for row in rows)


@pytest.mark.full
def test_a_real_sweep_of_two_metrics_under_a_limit(shards, tmp_path):
    """The front is that of all trials of full length; with a limit that some break, of those that keep it."""
    space_ = {**HALVING, "metric": ["psnr_hole", "landmark_error"]}

    def front(rows: list[dict[str, str]]) -> list[int]:
        points = {
            int(row["trial"]): (float(row["psnr_hole"]), -float(row["landmark_error"]))
            for row in rows if row["status"] == "done" and not row["breaks"]
        }  # fmt: skip
        beaten = [
            n for n, (a, b) in points.items() if any(q != (a, b) and q[0] >= a and q[1] >= b for q in points.values())
        ]
        return sorted(points.keys() - set(beaten))

    free = Sweep(tmp_path / "free", shards.folder, space_, "--trials", 6)
    free.run()
    assert sorted(json.loads((free.out / "sweep.json").read_text())["front"]) == front(free.rows())
    # Of those beyond it at the first rung none is promoted.
    limit = sorted(free.lines(number, "eval")[0]["psnr_hole"] for number in range(6))[3]
    space_["constraints"] = {"psnr_hole": {"max": limit}}
    held = Sweep(tmp_path / "held", shards.folder, space_, "--trials", 6)
    held.run()
    rows, summary = held.rows(), json.loads((held.out / "sweep.json").read_text())
    broken = {int(row["trial"]) for row in rows if row["breaks"]}
    assert broken and broken == {int(row["trial"]) for row in rows if float(row["psnr_hole"]) > limit}
    assert sorted(summary["front"]) == front(rows) and summary["best"] not in broken


def controller(
    shards: Manifest, folder: Path, *ends: tuple[str, dict[str, float]], **options: object
) -> SweepController:
    """A start of a sweep of which trials of these roles have come to the first rung, with these metrics."""
    config, file = write(folder, shards.folder, HALVING)
    sweep = prepare(SweepOptions(str(config), str(file), str(shards.folder), folder / "out", **options))
    for number, (role, metrics) in enumerate(ends):
        (_, values), *_ = sweep.plan.space.initial_points()
        trial = Trial(number, role, values, 0, BATCH, until=FIRST * BATCH)
        write_trial(folder / "out", trial)
        log = MetricsWriter(trial_dir(folder / "out", trial), FIRST)
        log.write("eval", FIRST, metrics)
        log.close()
        (trial_dir(folder / "out", trial) / f"checkpoints/step-{FIRST:08d}").mkdir(parents=True)
    return SweepController(
        sweep, constant_summary(sweep), SimpleNamespace(left_out={}), StopRequest(), lambda controller: None
    )


@pytest.mark.parametrize(("role", "code"), [("search", 0), ("confirm", 5)])
def test_a_goal_ends_a_sweep_whatever_may_be_repaired(shards, tmp_path, role, code):
    """Of the search nothing is tried again; a confirming trial is."""
    sweep = controller(shards, tmp_path, ("paper", {"psnr_hole": 9.0}), (role, {}), trials=2, stop_at="psnr_hole>=9")
    sweep.trials[1] = replace(sweep.trials[1], failure=(5, "the disk is full"))
    assert (sweep.conclude(), sweep.finished) == (code, not code)
    assert json.loads((sweep.out / "sweep.json").read_text())["status"] == ("interrupted" if code else "done")


def test_a_metric_that_is_no_number_fails_a_trial_whose_end_the_driver_missed(shards, tmp_path):
    """Killed between the last checkpoint and the report; the failure is kept, and others are not touched."""
    sweep = controller(shards, tmp_path, ("paper", {"psnr_hole": 9.0}), ("search", {"ssim": 0.5}), trials=2)
    assert [trial.failure for trial in read_trials(sweep.out)] == [
        None, (NumericError.exit_code, f"its psnr_hole is no number after {FIRST * BATCH} samples")
    ]  # fmt: skip
    assert [row.split(",")[2] for row in (sweep.out / "trials.csv").read_text().splitlines()[1:]] == [
        "paused",
        "failed",
    ]


def test_a_trial_trains_a_full_run_of_its_values_and_evaluates_at_the_end():
    """Whatever its batch; the CPUs of a worker are its threads, unless the configuration says how many."""
    where = space(f"metric: psnr\n{LR[:-1]}, schedule.batch: {{choice: [32, 48]}}}}")
    plan = SweepPlan(where, 4, 1000, (1000,), 0)
    trial = Trial(1, "search", {"optim.generator.lr": 0.01, "schedule.batch": 48}, 7, 48)
    config = trial_config(plan, trial, TrialResources(cpus=3))
    assert (config.optim.generator.lr, config.schedule.batch, config.seed) == (0.01, 48, 7)
    assert config.schedule.steps == config.evaluate.every == 21  # the first that is no shorter than 1000 samples
    assert config.runtime.threads == config.data.threads == 3
    sets = ["runtime.threads=5", "evaluate.every=2"]
    plan = replace(plan, space=space(f"metric: psnr\n{LR}", sets=sets))
    config = trial_config(plan, replace(trial, values={}), TrialResources(cpus=3))
    assert (config.runtime.threads, config.data.threads, config.evaluate.every) == (5, 3, 2)


@pytest.mark.parametrize("key", ["model.init", "model.gfc.parser"])
def test_a_searched_path_is_the_trials_own(key):
    """Absolute, as a worker runs in another folder; the base configuration's is that of trials which have it."""
    where = space(f"metric: psnr\nspace: {{{key}: {{choice: [runs/a, runs/b]}}}}", "gfc", sets=[f"{key}=runs/a"])
    plan = SweepPlan(where, 4, 640, (640,), 0)
    for path in ("runs/a", "runs/b"):
        config = trial_config(plan, Trial(1, "search", {key: path}, 0, 64), TrialResources())
        assert get_nested(config_to_dict(config), *key.split(".")) == str(Path(path).absolute())
