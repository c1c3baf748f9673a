"""Whole sweeps on this machine's own Ray cluster: what they leave, and that whatever disturbs them changes no result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.data.shards.manifest import Manifest
from tests.conftest import collagan
from tests.sweep.ray_nodes import descendants
from tests.sweep.small import BATCH, FIRST, HALVING, SECOND, STEPS, Sweep, left_alone
from tests.training.small import equal, weights

FAILING = {
    "metric": "psnr_hole",
    "search": "grid",
    "space": {"optim.generator.lr": {"choice": [1e-3, 1e37]}, "model.widths.generator": {"choice": [4, 10_000_000]}},
}


@pytest.fixture(scope="module")
def undisturbed(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Six trials, halved twice, and the winner again with another seed."""
    sweep = Sweep(
        tmp_path_factory.mktemp("undisturbed"), Path(str(shards.folder)), HALVING, "--trials", 6, "--seeds", 1
    )
    sweep.run()
    return sweep


def test_a_sweep_leaves_what_it_found(undisturbed: Sweep) -> None:
    rows = undisturbed.rows()
    assert [row["role"] for row in rows] == ["paper", *["search"] * 5, "confirm", "confirm"]
    assert sorted(int(row["steps"]) for row in rows[:6]) == [FIRST] * 4 + [SECOND, STEPS]
    assert [row["status"] for row in rows if int(row["steps"]) == STEPS] == ["done"] * 3
    for row in rows:  # as many steps as its samples say, λ on the simplex
        assert int(row["samples"]) == BATCH * int(row["steps"])
        assert sum(
            float(row[f"loss.weights.{task}.adv"]) for task in ("inpainting", "segmentation", "landmarks")
        ) == pytest.approx(1)
    assert [float(rows[0][f"loss.weights.{task}.adv"]) for task in ("inpainting", "segmentation", "landmarks")] == [
        0.8,
        0.1,
        0.1,
    ]
    assert {row["seed"] for row in rows[6:]} == {"1"}
    (winner,) = [row for row in rows[:6] if row["status"] == "done"]
    best = load_config(str(undisturbed.out / "best.yaml"))
    assert str(best.optim.generator.lr) == winner["optim.generator.lr"] and best.schedule.steps == STEPS
    assert "<svg" in (undisturbed.out / "report.html").read_text()


def test_nobody_trains_a_step_twice(undisturbed: Sweep) -> None:
    """A trial that goes on from a rung goes on from its checkpoint, and only as far as it is promoted."""
    for number, row in enumerate(undisturbed.rows()):
        segments = {FIRST: [0], SECOND: [0, FIRST], STEPS: [0, FIRST, SECOND] if number < 6 else [0]}[int(row["steps"])]
        assert [step for _, step in undisturbed.starts(number)] == segments
        assert [line["step"] for line in undisturbed.lines(number, "eval")] == [*segments[1:], int(row["steps"])]


def test_a_trial_is_an_ordinary_run(undisturbed: Sweep, tmp_path: Path) -> None:
    """The weights are those of `collagan train` on the trial's configuration, though it was trained in three segments."""
    (number,) = [int(row["trial"]) for row in undisturbed.rows()[:6] if row["status"] == "done"]
    collagan("train", undisturbed.trial(number) / "config.yaml", "--run", tmp_path / "run")
    assert equal(weights(tmp_path / "run", STEPS), weights(undisturbed.trial(number), STEPS))


def test_row_32_the_driver_is_killed(undisturbed: Sweep, shards: Manifest, tmp_path: Path) -> None:
    """kill -9 in the middle of a segment, and while trials wait at a rung; then Ctrl-C; the same command ends with the same sweep."""
    sweep = Sweep(tmp_path, Path(str(shards.folder)), HALVING, "--trials", 6, "--seeds", 1)
    for there in (lambda: sweep.saved(1) >= 2, lambda: any(sweep.saved(number) >= SECOND + 4 for number in range(6))):
        with left_alone(sweep.start()) as process:
            sweep.until(process, there)
            process.kill()
            process.wait()
    with left_alone(sweep.start()) as process:
        sweep.until(process, lambda: sweep.saved(7) >= 4)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 75, sweep.log.read_text()
    assert "the same command continues" in sweep.log.read_text()
    finished = {number: sweep.starts(number) for number, row in enumerate(sweep.rows()) if row["status"] == "done"}
    sweep.run()
    assert finished and all(sweep.starts(number) == starts for number, starts in finished.items())
    same = [{key: value for key, value in row.items() if key != "restarts"} for row in sweep.rows()]
    assert same == [{key: value for key, value in row.items() if key != "restarts"} for row in undisturbed.rows()]
    for number, row in enumerate(sweep.rows()):
        assert equal(
            weights(sweep.trial(number), int(row["steps"])), weights(undisturbed.trial(number), int(row["steps"]))
        )
    assert not list(sweep.out.glob(".stop*")) and not (sweep.out / ".tune").exists()
    before = (sweep.out / "trials.csv").read_bytes()
    assert "after" not in sweep.run().split("; best")[0]  # done: no segment is begun
    assert (sweep.out / "trials.csv").read_bytes() == before


def test_row_32_trials_that_fail_are_named(shards: Manifest, tmp_path: Path) -> None:
    """NaN, and memory that no machine has: named with their reason, the others go on, and the same command tries none again."""
    sweep = Sweep(tmp_path, Path(str(shards.folder)), FAILING)
    said = sweep.run()
    rows = sweep.rows()
    assert [row["status"] for row in rows] == ["done", "done", "failed", "failed", "failed"]
    assert "NaN or Inf" in rows[3]["reason"] and "memory" in rows[2]["reason"] and "memory" in rows[4]["reason"]
    assert all(f"trial {number} failed: " in said for number in (2, 3, 4))
    assert rows[3]["reason"].split(";")[0] in (sweep.out / "report.html").read_text()
    assert "failed: " not in sweep.run() and sweep.rows() == rows


def test_a_trial_that_can_never_be_placed(shards: Manifest, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, Path(str(shards.folder)), HALVING, "--cpus", 500, "--trials", 3)
    said = sweep.run(4)
    assert re.search(
        r"a trial takes one worker of 500 CPUs, and this Ray cluster can never place it; its nodes:\n  .*: \d+ CPUs, 0 GPUs",
        said,
    ), said
    assert not (sweep.out / "trials").exists()


def test_a_sweep_is_refused(undisturbed: Sweep, shards: Manifest, tmp_path: Path) -> None:
    """Another space, another configuration, other numbers of trials for a scheduler that compares all, a folder of somebody else."""
    data = Path(str(shards.folder))
    for folder, space, options, words in (
        ("space", {**HALVING, "metric": "psnr"}, ("--trials", 6), "space.metric: psnr_hole -> psnr"),
        ("set", HALVING, ("--trials", 6, "--set", "loss.adv=minmax"), "config.loss.adv: ns -> minmax"),
        ("seeds", FAILING, ("--seeds", 2), "this sweep has none of the paper's"),
        ("trials", HALVING, ("--trials", 7), "was begun with 6; sync_halving compares all of them from the beginning"),
        (
            "ranks",
            HALVING,
            ("--trials", 6, "--workers", 3),
            "schedule.batch: 4 samples cannot be shared evenly by 3 ranks",
        ),
    ):
        sweep = Sweep(tmp_path / folder, data, space, *options)
        sweep.words[sweep.words.index(sweep.out)] = undisturbed.out
        assert words in sweep.run(2)
    other = Sweep(tmp_path / "owner", data, HALVING, "--trials", 6)
    other.out.mkdir()
    os.chown(other.out, 12345, -1)
    assert "belongs to another user (id 12345)" in other.run(2)


def test_two_workers_train_what_two_ranks_train(shards: Manifest, tmp_path: Path) -> None:
    space = {"metric": "psnr_hole", "space": {"optim.generator.lr": {"loguniform": [1e-3, 1e-2]}}}
    sweep = Sweep(tmp_path, Path(str(shards.folder)), space, "--trials", 2, "--workers", 2)
    sweep.run()
    collagan("train", sweep.trial(1) / "config.yaml", "--run", tmp_path / "run", ranks=2)
    assert equal(weights(tmp_path / "run", STEPS), weights(sweep.trial(1), STEPS))


def test_pbt_is_the_same_after_a_kill(shards: Manifest, tmp_path: Path) -> None:
    """Losers go on with the networks of winners, the change of their values is told, and a kill between changes nothing."""
    space = {**HALVING, "scheduler": "pbt", "pbt": {"every": SECOND * BATCH, "quantile": 0.34}}
    sweeps = [Sweep(tmp_path / name, Path(str(shards.folder)), space, "--trials", 4) for name in ("whole", "killed")]
    sweeps[0].run()
    with left_alone(sweeps[1].start()) as process:
        sweeps[1].until(process, lambda: any(sweeps[1].saved(number) > 2 * SECOND for number in range(4)))
        process.kill()
        process.wait()
    sweeps[1].run()
    changes = {n: [line["changed"] for line in sweeps[0].lines(n, "event") if "changed" in line] for n in range(4)}
    losers = [number for number, told in changes.items() if told]
    assert losers and all("optim.generator.lr" in " ".join(told) for number in losers for told in changes[number])
    assert sweeps[0].rows() == [{**row, "restarts": "0"} for row in sweeps[1].rows()]
    for number in range(4):
        assert equal(weights(sweeps[0].trial(number), STEPS), weights(sweeps[1].trial(number), STEPS))


def test_row_32_only_this_machine_is_heard_and_only_with_the_token(shards: Manifest, tmp_path: Path) -> None:
    """The cluster of a sweep's own listens on loopback, and refuses who does not know its token."""
    token = "a" * 64
    sweep = Sweep(tmp_path, Path(str(shards.folder)), HALVING, "--trials", 3, schedule__steps=5000)
    with left_alone(sweep.start(RAY_AUTH_TOKEN=token)) as process:
        sweep.until(process, lambda: sweep.saved(0) >= 2)
        (folder,) = Path("/tmp").glob(f"collagan-ray-{process.pid}-*")
        assert folder.stat().st_mode & 0o077 == 0
        listening = [line.split() for line in subprocess.check_output(["ss", "-ltnpH"], text=True).splitlines()]
        family = descendants(process.pid)
        own = [words[3] for words in listening if any(f"pid={pid}," in words[-1] for pid in family)]
        assert own and all(address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:")) for address in own), own
        code = f"import ray; ray.init(address='127.0.0.1:{gcs(family)}', log_to_driver=False); print('let in')"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        clean |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "HOME": str(tmp_path)}
        strangers = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=clean | env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for env in (
                {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
                {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64},
                {"RAY_AUTH_MODE": "disabled"},
            )
        ]
        said = [stranger.communicate(timeout=90)[0] for stranger in strangers]
        assert ["let in" in text for text in said] == [True, False, False], said
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    assert not folder.exists()
    last = time.monotonic() + 60  # Ray's agents look now and then whether they are still needed
    while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < last, left
        time.sleep(0.2)


def gcs(family: list[int]) -> str:
    """The port of the cluster, from the command line of its processes."""
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ") for pid in family]
    return next(
        match[1] for command in commands if (match := re.search(r"--gcs-address[= ]127\.0\.0\.1:(\d+)", command))
    )
