import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from collagan_dist import files, places
from collagan_dist.errors import CheckpointError, ClusterError, CollaganError, ConfigError, DataError
from collagan_dist.places import Place
from collagan_dist.runs import checkpoint, copied_run, place_lease
from collagan_dist.runs import copies as copies_module
from collagan_dist.runs.copies import Copies, place_of
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.lease import Lease, LeaseRequest, process_start_time, this_process
from collagan_dist.runs.taken_up import take_up
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.faults.processes import until
from tests.faults.saving import die, forked
from tests.faults.test_packing import private_mounts
from tests.launch import torchrun
from tests.runs.run_folders import KEPT, SAVING, STEPS, checkpoint_names, events, lines, write_config
from tests.runs.test_lease import take_lease
from tests.training.small import equal, small, weights

FILES = [
    "discriminators.safetensors",
    "ema.safetensors",
    "generator.safetensors",
    "manifest.json",
    "optimizer.safetensors",
    "state.json",
]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(places, "_RETRY_SECONDS", (0.01, 0.02))
    monkeypatch.setattr(place_lease, "_POLL_SECONDS", 0.02)


@pytest.fixture
def lease(tmp_path: Path) -> Iterator[Lease]:
    lease = take_lease(tmp_path)
    yield lease
    lease.release()


def claimed(place: Place, run: Path, lease: Lease, **identity: object) -> place_lease.PlaceLease:
    return place_lease.claim(place, RunPaths(run), lease.owner, identity, False)


def copy_all(place: Place, run: Path, lease: Lease, keep: int = 2) -> Copies:
    copies = Copies(place, RunPaths(run), keep, claimed(place, run, lease))
    copies.request()
    assert copies.wait(60)
    return copies


@pytest.mark.parametrize("kind", ["s3", "folder"])
def test_a_run_goes_on_elsewhere_as_if_nothing_had_happened(shards, finished, request, tmp_path, monkeypatch, kind):
    """From another folder and working directory, with the same weights, bit for bit, and the whole log."""
    place = "s3://{}/runs".format(request.getfixturevalue("s3").bucket) if kind == "s3" else str(tmp_path / "place")
    config = small(shards.folder, **SAVING, checkpoint__copy_to=place)
    train(config, tmp_path / "here/run", World(), StartOptions(stop_at=6))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    train(config, Path("run"), World())
    assert equal(weights(finished, STEPS), weights(Path("run"), STEPS)) and checkpoint_names(Path("run")) == KEPT
    assert [line["step"] for line in lines(Path("run"), "train")] == [2, 4, 6, 8, 9]
    assert [event["step"] for event in events(Path("run"), "resume")] == [6] and not events(Path("run"), "copy_failed")
    there = Place(f"{place}/run")
    assert sorted(there.files_below("checkpoints")) == [f"{step}/{file}" for step in KEPT for file in FILES]
    assert there.find_file("config.yaml", 1 << 20) == Path("run/config.yaml").read_bytes()
    # The folder that was left behind knows its copies, and takes what is newer there.
    train(config, tmp_path / "here/run", World())
    assert checkpoint_names(tmp_path / "here/run") == ["step-00000006", KEPT[-1]]
    assert [line["step"] for line in lines(tmp_path / "here/run", "train")] == [2, 4, 6, 8, 9]
    assert [event["step"] for event in events(tmp_path / "here/run", "resume")][:1] == [6]


def test_a_copy_that_fails_is_said_and_tried_again(shards, finished, s3, tmp_path, capsys):
    """The run ends well, with all its checkpoints there."""
    s3.faults["optimizer.safetensors"] = ["503"] * 3 + ["flip"] + [""] * 99
    config = small(shards.folder, **SAVING | {"checkpoint__keep": 9}, checkpoint__copy_to=f"s3://{s3.bucket}/runs")
    train(config, tmp_path / "run", World())
    reason = events(tmp_path / "run", "copy_failed")[0]["reason"]
    assert reason.startswith(
        f"s3://{s3.bucket}/runs/run/checkpoints/step-00000002/optimizer.safetensors: cannot be written"
    )
    said = capsys.readouterr().err
    everything = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert "CANARY" not in said and not any(b"CANARY" in content for content in everything)
    assert f"is not copied to s3://{s3.bucket}/runs/run: " in said and "tried again with the next checkpoint" in said
    assert s3.names("runs/run/checkpoints/") == [
        f"{step}/{file}" for step in checkpoint_names(tmp_path / "run") for file in FILES
    ]
    assert equal(weights(finished, STEPS), weights(tmp_path / "run", STEPS))


def test_bytes_that_changed_on_their_way_are_noticed(run, tmp_path, lease, monkeypatch, capsys):
    """By reading them back: no manifest says that they are a checkpoint."""
    place, put = Place(str(tmp_path / "place")), Place.put

    def damaging(self: Place, local: Path, name: str) -> None:
        put(self, local, name)
        path = Path(self / name)
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    monkeypatch.setattr(Place, "put", damaging)
    copies = copy_all(place, run, lease)
    assert "is not what was uploaded" in copies.take_failures()[0][1]
    assert not [name for name in place.files_below("checkpoints") if name.endswith("manifest.json")]
    monkeypatch.undo()
    copies.request()
    assert copies.wait(60) and not copies.take_failures()
    copies.close()
    assert take_up(place, RunPaths(tmp_path), lease, True) == STEPS


def test_killed_anywhere_in_an_upload(run, tmp_path, lease):
    """After any number of requests, also in the middle of a file: what a start takes from there is whole, or nothing."""
    taken = []
    for number in range(40):
        place, folder = Place(str(tmp_path / f"place-{number}")), tmp_path / f"run-{number}"
        ended = forked(copy_and_die, place, run, lease, number)
        (folder / "checkpoints").mkdir(parents=True)
        taken.append(take_up(place, RunPaths(folder), lease, strict=True))
        loaded = checkpoint.load_latest(folder / "checkpoints", strict=True)
        assert (loaded and loaded.state["step"]) == taken[-1]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        # The next start completes it.
        copy_all(place, run, lease).close()
        assert {
            name.split("/")[0] for name in place.files_below("checkpoints") if name.endswith("manifest.json")
        } == set(KEPT)
    assert taken[0] is None and taken[-1] == STEPS and 15 < len(taken) < 40


def copy_and_die(place: Place, run: Path, lease: Lease, number: int) -> None:
    """Copy a run, killed in the n-th write, of a file when half of it is there."""
    count, put, write = 0, Place.put, Place.write

    def counting() -> bool:
        nonlocal count
        count += 1
        return count > number

    def put_or_die(self: Place, local: Path, name: str) -> None:
        if counting():
            target = Path(self / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(local.read_bytes()[: local.stat().st_size // 2])
            die()
        put(self, local, name)

    def write_or_die(self: Place, name: str, content: bytes, *check: Callable[[], None]) -> None:
        if counting():
            die()
        write(self, name, content, *check)

    Place.put, Place.write = put_or_die, write_or_die
    copies = copy_all(place, run, lease)
    assert not copies.take_failures()


def test_killed_in_a_training_while_it_uploads(shards, finished, s3, tmp_path):
    s3.faults["state.json"] = ["", "slow"]
    config = small(shards.folder, **SAVING, checkpoint__copy_to=f"s3://{s3.bucket}/runs")
    command = [
        sys.executable,
        "-m",
        "collagan_dist",
        "train",
        write_config(config, tmp_path),
        "--run",
        tmp_path / "here/run",
    ]
    first = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    try:
        # A PUT, a GET that reads it back, then the one that hangs.
        until(lambda: s3.requests["state.json"] >= 2, lambda: first.poll() is None)
    finally:
        first.kill()
        first.wait()
    s3.go_on.set()
    train(config, tmp_path / "there/run", World())
    assert equal(weights(finished, STEPS), weights(tmp_path / "there/run", STEPS))
    assert s3.names("runs/run/checkpoints/") == [f"{step}/{file}" for step in KEPT for file in FILES]


def test_an_upload_that_takes_too_long_is_left_to_the_next_start(shards, s3, tmp_path, monkeypatch, capsys):
    """The end waits for a bounded time; then it says what is missing, and ends well."""
    monkeypatch.setattr(copied_run, "_COPY_SECONDS", 0.3)
    s3.faults["generator.safetensors"] = ["slow"] + [""] * 99
    config = small(shards.folder, schedule__steps=2, checkpoint__copy_to=f"s3://{s3.bucket}/runs")
    assert train(config, tmp_path / "run", World()) == 2
    assert (
        f"step 2 is not yet copied to s3://{s3.bucket}/runs/run: the next start of this run does it"
        in capsys.readouterr().err
    )
    assert "manifest.json" not in "".join(s3.names("runs/run/checkpoints/"))
    s3.go_on.set()
    monkeypatch.setattr(copied_run, "_COPY_SECONDS", 60)
    train(config, tmp_path / "run", World())
    assert "step-00000002/manifest.json" in s3.names("runs/run/checkpoints/")


def test_damaged_copies_are_never_taken(run, tmp_path, lease, capsys):
    place = Place(str(tmp_path / "place"))
    copy_all(place, run, lease).close()
    ema = Path(place / f"checkpoints/{KEPT[1]}/ema.safetensors")
    ema.write_bytes(ema.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"step-00000009/ema.safetensors: expected .*or run without --strict"):
        take_up(place, RunPaths(tmp_path / "strict"), lease, strict=True)
    assert take_up(place, RunPaths(tmp_path / "other"), lease, strict=False) == 8
    assert "step-00000009/ema.safetensors: expected a file with sha256" in capsys.readouterr().err
    stray, state = Path(place / "checkpoints/stray"), Path(place / f"checkpoints/{KEPT[0]}/state.json")
    stray.write_bytes(b"x")
    leading_out = {"state.json": files.sha256(state), "../stray": files.sha256(stray)}
    right = {"state.json": files.sha256(state)}
    for step, hashes in ((8, {"../stray": "0"}), (8, leading_out), (8, {"state.json": "0"}), (8, {}), (7, right)):
        forged = json.dumps({"step": step, "sha256": hashes})
        Path(place / f"checkpoints/{KEPT[0]}/manifest.json").write_text(forged if hashes else "{")
        with pytest.raises(CheckpointError, match="no copy of a checkpoint is undamaged"):
            take_up(place, RunPaths(tmp_path / "forged"), lease, strict=False)
    assert not [path for path in (tmp_path / "forged").rglob("*") if path.is_file()]


def spoil(checkpoint_folder: Path, name: str = "ema.safetensors") -> None:
    path = checkpoint_folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("name", ["ema.safetensors", "manifest.json"])
def test_a_checkpoint_that_is_damaged_here_holds_up_no_other(run, tmp_path, lease, capsys, name):
    """It is named once, and never copied."""
    place, here = Place(str(tmp_path / "place")), shutil.copytree(run, tmp_path / "here")
    spoil(here / "checkpoints" / KEPT[1], name)
    copies = copy_all(place, here, lease)
    copies.request()
    assert copies.wait(60)
    copies.close()
    failures = copies.take_failures()
    assert len(failures) == 1 and failures[0][0] == STEPS and "damaged" in failures[0][1]
    assert place.files_below("checkpoints") == [f"{KEPT[0]}/{file}" for file in FILES]


def test_a_checkpoint_that_is_damaged_here_is_taken_from_its_copy(run, tmp_path, lease):
    place, here = Place(str(tmp_path / "place")), shutil.copytree(run, tmp_path / "here")
    copy_all(place, here, lease).close()
    spoil(here / "checkpoints" / KEPT[1])
    log = here / "metrics.jsonl"
    log.write_text(log.read_text() + "newer than the copy's\n")
    assert take_up(place, RunPaths(here), lease, True) == STEPS and checkpoint_names(here) == KEPT
    assert log.read_text().endswith("newer than the copy's\n")
    assert equal(weights(here, STEPS), weights(run, STEPS))
    assert take_up(place, RunPaths(here), lease, True) is None


def test_a_copy_that_was_found_damaged_is_made_again(run, tmp_path, lease):
    """Though its manifest is that of the checkpoint here: the same machine computes the same bytes again."""
    place = Place(str(tmp_path / "place"))
    copy_all(place, run, lease).close()
    spoil(Path(place / f"checkpoints/{KEPT[1]}"))
    copies = Copies(place, RunPaths(run), 2, claimed(place, run, lease))
    (tmp_path / "there").mkdir()
    assert take_up(place, RunPaths(tmp_path / "there"), lease, False, copies.distrust) == 8
    copies.request()
    assert copies.wait(60) and not copies.take_failures()
    copies.close()
    assert take_up(place, RunPaths(tmp_path / "there"), lease, True) == STEPS


def test_a_log_of_any_size_is_taken_whole(run, tmp_path, lease):
    place, paths = Place(str(tmp_path / "place")), RunPaths(tmp_path / "there")
    copy_all(place, run, lease).close()
    with Path(place / "metrics.jsonl").open("ab") as log:
        log.truncate((1 << 28) + 9)
        log.seek(0, os.SEEK_END)
        log.write(b"newest")
    assert take_up(place, paths, lease, True) == STEPS
    assert files.sha256(paths.metrics_log) == files.sha256(Path(place / "metrics.jsonl"))


def test_copies_are_on_disk_before_they_have_their_names(run, tmp_path, lease, monkeypatch):
    """There as here: a power cut would leave checkpoints whose files are empty."""
    place, flushed, fsync = Place(str(tmp_path / "place")), [], os.fsync

    def record(handle: int) -> None:
        fsync(handle)
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink())

    monkeypatch.setattr(os, "fsync", record)
    copy_all(place, run, lease).close()
    for name in FILES:
        partial = re.compile(rf"{place}/checkpoints/{KEPT[1]}/\.{name}\.[0-9a-f]+\.partial")
        assert [path for path in flushed if partial.fullmatch(str(path))]
    flushed.clear()
    take_up(place, RunPaths(tmp_path / "there"), lease, True)
    downloaded = tmp_path / f"there/checkpoints/.{KEPT[1]}-{lease.owner.token[:8]}"
    assert {*FILES, "metrics.jsonl"} - {path.name for path in flushed if path.parent == downloaded} == {"manifest.json"}
    assert flushed[-3:] == [downloaded, tmp_path / "there", downloaded.parent]


def test_a_start_that_took_one_copy_up_keeps_the_others_there(run, tmp_path, lease):
    place, there = Place(str(tmp_path / "place")), tmp_path / "there"
    there.mkdir()
    copy_all(place, run, lease).close()
    half = Path(place / "checkpoints/step-00000003/state.json")
    half.parent.mkdir()
    half.touch()
    copies = Copies(place, RunPaths(there), 2, claimed(place, there, lease))
    assert take_up(place, RunPaths(there), lease, True) == STEPS and checkpoint_names(there) == KEPT[1:]
    copies.request()
    assert copies.wait(60)
    copies.close()
    assert {name.split("/")[0] for name in place.files_below("checkpoints")} == set(KEPT)


def test_a_place_that_does_not_answer_is_not_taken_for_damaged(run, s3, shards, tmp_path, lease):
    """No older checkpoint is taken in its stead, and the end is one that a restart may mend."""
    place = Place(f"s3://{s3.bucket}/runs/run")
    copy_all(place, run, lease).close()
    s3.faults["ema.safetensors"], s3.forever = ["503"], True
    with pytest.raises(places.Unreachable, match=r"step-00000009/ema.safetensors"):
        take_up(place, RunPaths(tmp_path / "there"), lease, strict=False)
    s3.faults = {"lease": ["503"]}
    config = small(shards.folder, checkpoint__copy_to=f"s3://{s3.bucket}/runs")
    with pytest.raises(ClusterError, match="3 times; so it is unknown whether newer checkpoints are there"):
        train(config, tmp_path / "again/run", World())


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(run, tmp_path, lease):
    """Nor a file for a missing one: then an older checkpoint would be taken, or none."""
    place, disk = Place(str(tmp_path / "place/run")), tmp_path / "disk"
    copy_all(place, run, lease).close()
    file = Path(place / f"checkpoints/{KEPT[1]}/ema.safetensors")
    file.unlink()
    file.symlink_to("/proc/self/mem")  # EIO, as of a disk that fails
    with pytest.raises(places.Unreachable, match=r"ema.safetensors: cannot be fetched .*Input/output error.*3 times"):
        take_up(place, RunPaths(tmp_path / "there"), lease, strict=False)
    (tmp_path / "place").rename(disk)
    (tmp_path / "place").touch()
    with pytest.raises(places.Unusable, match=r"place/run/checkpoints: cannot be fetched .Not a directory.; give a"):
        take_up(place, RunPaths(tmp_path / "there"), lease, strict=False)
    assert not [path for path in (tmp_path / "there").rglob("*") if path.is_file()]


def test_copies_that_are_gone_are_said(run, tmp_path, lease, capsys):
    """As those on a disk that is not mounted: the run begins anew with what it has."""
    place, here = Place(str(tmp_path / "place/run")), shutil.copytree(run, tmp_path / "here")
    (tmp_path / "new").mkdir()
    for folder, said in ((here, ""), (here, ""), (tmp_path / "new", "")):
        claimed(place, folder, lease).release()
        assert capsys.readouterr().err == said
    for folder, step in ((here, STEPS), (tmp_path / "new", 0)):
        shutil.rmtree(tmp_path / "place")
        claimed(place, folder, lease).release()
        assert (
            f"there are no copies at {place}, though this run was copied; it begins at step {step}"
            in capsys.readouterr().err
        )


def test_a_full_place_gets_the_newest_copies(shards, tmp_path):
    """A real one. Where a copy does not fit, older ones go, never the newest that is whole, and no half stays."""
    config = small(shards.folder, **SAVING, checkpoint__copy_to=str(tmp_path / "disk"))
    here, half = tmp_path / "run", tmp_path / "disk/run/checkpoints/step-00000001"
    train_here = f"{sys.executable} -m collagan_dist train {write_config(config, tmp_path)} --out {here} >/dev/null"
    script = f"""
        mkdir {tmp_path}/disk; mount -t tmpfs -o size=2m none {tmp_path}/disk  # a checkpoint has 1.2 to 1.5 MB
        {train_here}; echo "code $?"; find {tmp_path}/disk -mindepth 3 | sort; echo next
        mount -o remount,size=4m {tmp_path}/disk; rm -r {here}/checkpoints/{KEPT[1]}  # the step is trained again
        mkdir {half}; head -c 1600k /dev/zero > {half}/state.json
        {train_here}; echo "code $?"; find {tmp_path}/disk -mindepth 3 | sort
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    for part, steps in zip(result.stdout.split("next\n"), ([2], [8, 9]), strict=True):
        folders = [f"{tmp_path}/disk/run/checkpoints/step-{step:08d}" for step in steps]
        assert part.split("\n", 1)[0] == "code 0", result.stderr
        assert part.splitlines()[1:] == [path for at in folders for path in [at, *(f"{at}/{name}" for name in FILES)]]
    failed = events(here, "copy_failed")
    assert {event["step"] for event in failed} == {4, 6, 8, 9}
    assert all("no space" in event["reason"] for event in failed)
    gone = re.findall(r"no room for step (\d+), so the copy of step (\d+) is removed there", result.stderr)
    assert [step for _, step in gone] == ["1", "2"], result.stderr


def test_room_is_made_of_older_and_damaged_copies_alone(run, tmp_path, lease, monkeypatch, capsys):
    """The newest one that is whole stays, and what is newer than the checkpoint without room."""
    place, put = Place(str(tmp_path / "place")), Place.put
    copy_all(place, run, lease).close()
    there = Path(place / "checkpoints")
    for step in (5, 6, 7):
        shutil.copytree(there / KEPT[0], there / f"step-{step:08d}")

    without_room = KEPT[1]

    def put_or_full(self: Place, local: Path, name: str) -> None:
        if without_room in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(self, local, name)

    monkeypatch.setattr(Place, "put", put_or_full)
    copies = Copies(place, RunPaths(run), 2, claimed(place, run, lease))
    for step in (8, STEPS):
        copies.distrust(step)
    copies.request()
    assert copies.wait(60) and [step for step, _ in copies.take_failures()] == [STEPS]
    copies.close()
    assert [path.name for path in there.iterdir()] == ["step-00000007"]
    gone = re.findall(r"no room for step 9, so the copy of step (\d+) is removed there", capsys.readouterr().err)
    assert gone == ["8", "5", "6"]
    # For an older step nothing newer goes.
    shutil.copytree(run / "checkpoints" / KEPT[0], run / "checkpoints" / (without_room := "step-00000003"))
    copies = copy_all(place, run, lease, keep=3)
    copies.close()
    assert [step for step, _ in copies.take_failures()] == [3]
    assert sorted(path.name for path in there.iterdir()) == ["step-00000007", *KEPT]


def test_half_a_copy_is_removed_from_a_store(run, s3, lease, monkeypatch):
    """Not a whole one, of whose manifest only the store's answer was lost."""
    place = Place(f"s3://{s3.bucket}/runs/run")
    s3.faults["optimizer.safetensors"] = ["503"] * 3
    copies = copy_all(place, run, lease)
    assert "optimizer.safetensors: cannot be written" in copies.take_failures()[0][1]
    assert not s3.names("runs/run/checkpoints/")
    write = Place.write

    def write_and_lose(self: Place, name: str, content: bytes, *check: Callable[[], None]) -> None:
        write(self, name, content, *check)
        if "manifest" in name:
            raise places.Unreachable(f"{name}: no answer")

    monkeypatch.setattr(Place, "write", write_and_lose)
    copies.request()
    assert copies.wait(60) and copies.take_failures() == [(STEPS, f"checkpoints/{KEPT[1]}/manifest.json: no answer")]
    assert s3.names("runs/run/checkpoints/") == [f"{KEPT[1]}/{file}" for file in FILES]
    copies.request()
    assert copies.wait(60)
    copies.close()
    assert len(copies.take_failures()) == 1
    assert s3.names("runs/run/checkpoints/") == [f"{step}/{file}" for step in KEPT for file in FILES]


def test_a_disk_without_room_for_a_copy_is_not_taken_for_a_damaged_copy(run, tmp_path, lease, monkeypatch):
    place = Place(str(tmp_path / "place"))
    copy_all(place, run, lease).close()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Place, "_transfer", full)
    with pytest.raises(files.DiskFull):
        take_up(place, RunPaths(tmp_path / "there"), lease, strict=False)
    assert not list((tmp_path / "there/checkpoints").iterdir())


def test_a_start_shows_that_it_lives_while_a_large_file_is_uploaded(run, tmp_path, lease, monkeypatch):
    monkeypatch.setattr(place_lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(copies_module, "_BEAT_POLL_SECONDS", 0.01)
    place, go_on, put = Place(str(tmp_path / "place")), threading.Event(), Place.put
    monkeypatch.setattr(Place, "put", lambda *args: go_on.wait(60) and put(*args))
    copies = Copies(place, RunPaths(run), 2, claimed(place, run, lease))
    copies.request()
    before = Path(place / "lease").read_text()
    until(lambda: Path(place / "lease").read_text() != before)
    assert not place.files_below("checkpoints")
    go_on.set()
    assert copies.wait(60)
    copies.close()
    until(lambda: "state ended" in Path(place / "lease").read_text())
    copies.lease.beat()
    assert "state ended" in Path(place / "lease").read_text()


def test_a_place_whose_lease_was_removed_still_belongs_to_its_run(run, tmp_path, lease):
    place, other = Place(str(tmp_path / "place")), shutil.copytree(run, tmp_path / "other")
    copy_all(place, run, lease).close()
    Path(place / "lease").unlink()
    (other / "copy.json").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match="another run, and this run folder has checkpoints of its own"):
        claimed(place, other, lease)
    claimed(place, run, lease).release()
    Path(place / "lease").unlink()
    (tmp_path / "empty").mkdir()
    claimed(place, tmp_path / "empty", lease).release()


def test_the_model_that_a_run_began_with_may_be_gone_elsewhere(shards, run, tmp_path):
    model = shutil.copytree(run, tmp_path / "model")
    config = small(
        shards.folder, schedule__steps=2, model__init=str(model), checkpoint__copy_to=str(tmp_path / "place")
    )
    train(config, tmp_path / "here/run", World())
    shutil.rmtree(model)
    assert train(config, tmp_path / "there/run", World()) == 2
    assert equal(weights(tmp_path / "here/run", 2), weights(tmp_path / "there/run", 2))
    with pytest.raises(CollaganError, match=str(model)):
        train(config, tmp_path / "there/another", World())


def test_a_lease_that_was_emptied_is_none(run, s3, tmp_path, lease):
    """Stores refuse any range of an empty object; three tries of each start would end with exit 4."""
    place = Place(f"s3://{s3.bucket}/runs/run")
    claimed(place, run, lease).release()
    s3.write("runs/run/lease", b"")
    s3.requests.clear()
    assert place.find_file("lease", 9) == b"" == place.read("lease", 9) == place.read("lease")
    assert s3.requests["lease"] == 3
    with pytest.raises(places.DamagedThere, match="no such file"):
        place.read("absent", 9)
    claimed(place, run, lease).release()
    assert place.find_file("lease", 1 << 12).startswith(b"1 ")


def test_a_place_belongs_to_one_run(run, tmp_path, lease):
    """Another configuration, or a run folder with checkpoints of its own, is refused and changes nothing."""
    place, other = Place(str(tmp_path / "place")), shutil.copytree(run, tmp_path / "other")
    copy_all(place, run, lease).close()
    before = place.files_below("")
    with pytest.raises(
        ConfigError, match="holds the copies of another run, and this run folder has checkpoints of its own"
    ):
        claimed(place, other, lease)
    with pytest.raises(ConfigError, match="another run, of another configuration or other data"):
        claimed(place, tmp_path / "empty", lease, seed=1)
    assert place.files_below("") == before
    place_lease.claim(place, RunPaths(tmp_path), lease.owner, {"seed": 1}, True).release()


def test_a_second_start_is_refused_while_the_first_lives(run, tmp_path, lease, capsys):
    """On another machine, by the beats of the first; when they stop, it takes over, and the first copies nothing more."""
    place, elsewhere = Place(str(tmp_path / "place")), tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = claimed(place, run, lease)
    first.owner = replace(first.owner, machine="another", heartbeat_seconds=0.2)
    first._write(first.check)
    copies = Copies(place, RunPaths(run), 2, first)
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(0.05):
            first._beats += 1
            first._write(first.check)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    second = take_lease(elsewhere)
    with pytest.raises(
        ClusterError, match=rf"{place}: checkpoints are being copied there by pid {os.getpid()} on host .*; stop it"
    ):
        claimed(place, elsewhere, second)
    stopped.set()
    thread.join()
    taken = claimed(place, elsewhere, second)
    assert taken.owner.generation == 2 and taken.run == first.run
    copies.request()
    assert copies.wait(30) and copies.lost
    assert "start 2 on host" in copies.take_failures()[0][1] and not place.files_below("checkpoints")
    assert "it trains on" in capsys.readouterr().err
    taken.release()
    second.release()


def other_start(lease: place_lease.PlaceLease) -> str:
    return replace(lease.owner, generation=2, token="cafe").text()


def test_a_start_that_lost_the_place_between_two_tries_writes_nothing(run, s3, tmp_path, lease, monkeypatch, capsys):
    """Neither its lease nor a manifest, whose files may be another start's by now."""
    place = Place(f"s3://{s3.bucket}/runs/run")
    first = claimed(place, run, lease)

    def lose(_: float) -> None:
        s3.write("runs/run/lease", other_start(first).encode())

    monkeypatch.setattr(places, "time", SimpleNamespace(sleep=lose))
    monkeypatch.setattr(place_lease, "BEAT_SECONDS", 0)
    s3.faults["lease"] = ["", "503"]  # of the check before, of the write
    with pytest.raises(ClusterError, match=r"start 2 on host .* has taken over"):
        first.beat()
    assert place.find_file("lease", 1 << 12) == other_start(first).encode()
    place.remove("lease")
    monkeypatch.setattr(place_lease, "BEAT_SECONDS", 99)
    s3.faults["manifest.json"] = ["", "503"]
    copies = Copies(place, RunPaths(run), 2, claimed(place, run, lease))
    copies.request()
    assert copies.wait(60) and copies.lost and "taken over" in copies.take_failures()[0][1]
    assert sorted({name.split("/")[1] for name in s3.names("runs/run/checkpoints/")}) == sorted(
        {*FILES} - {"manifest.json"}
    )


def test_of_two_starts_that_claim_at_once_the_first_to_write_ends(run, tmp_path, lease, monkeypatch):
    place, write = Place(str(tmp_path / "place")), Place.write

    def both(self: Place, name: str, content: bytes, *check: object) -> None:
        write(self, name, content, *check)
        write(self, name, replace(lease.owner, generation=2, token="cafe").text().encode())

    monkeypatch.setattr(Place, "write", both)
    with pytest.raises(ClusterError, match=r"start 2 on host .* has taken over"):
        claimed(place, run, lease)


def test_a_start_that_lost_the_place_removes_nothing_more(run, tmp_path, lease, monkeypatch):
    place, remove = Place(str(tmp_path / "place")), Place.remove
    first = claimed(place, run, lease)
    for step in (1, 3):
        place.write(f"checkpoints/step-{step:08d}/state.json", b"half")

    def remove_and_lose(self: Place, *names: str) -> None:
        remove(self, *names)
        place.write("lease", other_start(first).encode())

    monkeypatch.setattr(Place, "remove", remove_and_lose)
    copies = Copies(place, RunPaths(run), 2, first)
    copies.request()
    assert copies.wait(60) and copies.lost
    assert {name.split("/")[0] for name in place.files_below("checkpoints")} == {"step-00000003", *KEPT}


def test_half_a_copy_is_left_to_the_start_that_has_the_place(run, tmp_path, lease, monkeypatch):
    """It may be its own by now."""
    place, put = Place(str(tmp_path / "place")), Place.put
    first = claimed(place, run, lease)

    def put_and_lose(self: Place, local: Path, name: str) -> None:
        put(self, local, name)
        place.write("lease", other_start(first).encode())
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Place, "put", put_and_lose)
    copies = Copies(place, RunPaths(run), 2, first)
    copies.request()
    assert copies.wait(60) and copies.lost and "taken over" in copies.take_failures()[0][1]
    assert len(place.files_below("checkpoints")) == 1


@pytest.mark.parametrize("job", ["slurm:7", "torchrun:demo"])
def test_two_jobs_of_one_rendezvous_name_are_no_restart_for_a_place(tmp_path, job):
    """On two machines only a scheduler's job is known to be one; for a run folder, which one machine or file system has, any."""
    former = replace(this_process(1, "cafe", f"{job}, start 0", 20.0), machine="another")
    own = f"{job}, start 1"
    assert LeaseRequest(tmp_path, own).is_free(former, 0)
    assert LeaseRequest(Place(str(tmp_path)), own).is_free(former, 0) == (job == "slurm:7")


@pytest.mark.parametrize(
    ("copy_to", "said"),
    [
        ("https://example.org/runs", "checkpoints are copied to a folder or to file:///, s3://"),
        ("hf://datasets/a/b", "checkpoints are copied to a folder"),
        ("s3://key:word@bucket/x", "credentials belong in the environment"),
        (".", "holds the run folder itself"),
        ("file://{here}", "holds the run folder itself"),
        ("file://name/x", "file://name/x: checkpoints are copied to a folder or to file:///, s3://"),
        ("file:name/x", "checkpoints are copied to a folder"),
        (
            "~nobody-here/x",
            "^checkpoint.copy_to: ~nobody-here/x cannot be used as a folder .*; give another folder or a URL",
        ),
    ],
)
def test_places_that_cannot_take_copies(tmp_path, monkeypatch, copy_to, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said) as error:
        place_of(copy_to.format(here=tmp_path), Path("run"))
    assert "word" not in str(error.value).removesuffix(said) or "password" in str(error.value)


def test_a_bucket_that_is_not_there_ends_the_start(shards, s3, tmp_path):
    config = small(shards.folder, checkpoint__copy_to="s3://no-such-bucket/runs")
    with pytest.raises(DataError, match="no such bucket"):
        train(config, tmp_path / "run", World())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("copy_to", "said"),
    [
        ("{here}/file", "{here}/file/run/lease: cannot be fetched (Not a directory)"),
        ("{here}/disk", "{here}/disk/run: cannot be written (Read-only file system)"),
        ("/proc", "/proc/run: cannot be written (No such file or directory)"),
    ],
)
def test_a_folder_that_takes_no_copies_ends_the_start_and_leaves_nothing(shards, finished, tmp_path, copy_to, said):
    """At once, and a run folder that was there keeps what it had."""
    old, new, (copy_to, said) = (
        tmp_path / "old/run",
        tmp_path / "new/run",
        (x.format(here=tmp_path) for x in (copy_to, said)),
    )
    shutil.copytree(finished, old)
    (tmp_path / "file").touch()
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file() and path.name != "lease"}
    config = write_config(small(shards.folder, **SAVING, checkpoint__copy_to=copy_to), tmp_path / "config")
    train_into = f"{sys.executable} -m collagan_dist train {config} --out"
    script = f"""
        mkdir {tmp_path}/disk; mount -t tmpfs -o ro none {tmp_path}/disk
        {train_into} {new}; echo "code $?"; {train_into} {old}; echo "code $?"
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    mend = "give a folder that this user can read and write"
    assert result.stdout == "code 2\ncode 2\n", result.stderr
    assert result.stderr.count(f"collagan train: checkpoint.copy_to: {said}; {mend}\n") == 2
    assert not new.parent.exists() and not (old / "copy.json").exists()
    assert before.items() <= {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}.items()


def test_a_refused_start_leaves_no_run_folder(shards, tmp_path):
    """Where the place is another run's, or another start copies there. One that was there stays."""
    config = small(shards.folder, schedule__steps=2, checkpoint__copy_to=str(tmp_path / "place"))
    train(config, tmp_path / "here/run", World())
    with pytest.raises(ConfigError, match="another run, of another configuration"):
        train(config.model_copy(update={"seed": 7}), tmp_path / "there/run", World())
    assert not (tmp_path / "there").exists()
    (tmp_path / "there/run").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as other:
        owner = replace(this_process(2, "cafe", "", 1.0), pid=other.pid, process_start=process_start_time(other.pid))
        Path(tmp_path / "place/run/lease").write_text(owner.text())
        with pytest.raises(ClusterError, match="checkpoints are being copied there"):
            train(config, tmp_path / "there/run", World())
        other.kill()
    assert (tmp_path / "there/run").exists()


@pytest.mark.full
def test_two_ranks_go_on_elsewhere(shards, tmp_path):
    config = write_config(small(shards.folder, **SAVING, checkpoint__copy_to=str(tmp_path / "place")), tmp_path)
    torchrun(2, "-m", "--", "collagan_dist", "train", config, "--run", tmp_path / "here/run")
    shutil.rmtree(tmp_path / f"place/run/checkpoints/{KEPT[1]}")
    torchrun(2, "-m", "--", "collagan_dist", "train", config, "--run", tmp_path / "there/run")
    assert equal(weights(tmp_path / "here/run", STEPS), weights(tmp_path / "there/run", STEPS))
    assert [event["step"] for event in events(tmp_path / "there/run", "resume")] == [8]
