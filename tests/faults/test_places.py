"""Places that need not exist: a home, a passwd entry, /tmp; and what a proxy sends in place of a file."""

import os
import re
import subprocess
import sys

import pytest

from tests.commands.conftest import SMALL
from tests.data.server import serving
from tests.faults.test_bad_input import run
from tests.faults.test_packing import private_mounts

SPACE = "{metric: psnr_hole, mode: max, scheduler: none, search: random, space: {optim.generator.lr: {loguniform: [1.0e-4, 1.0e-3]}}}"
UNKNOWN = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]


def as_unknown_user(tmp_path, *words, **env):
    """A command of a user without an entry in passwd, who has no HOME."""
    if subprocess.run([*UNKNOWN, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    known = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*UNKNOWN, sys.executable, *map(str, words)], capture_output=True, text=True, env=known | env, cwd=tmp_path
    )


def test_a_user_without_home_and_passwd_entry(tmp_path):
    """Every command starts, and so does what it imports."""
    code = "from pathlib import Path; import collagan_dist.commands.main as m; m._give_home(); import ray.tune; print(Path.home())"
    result = as_unknown_user(tmp_path, "-c", code)
    assert (result.returncode, result.stdout) == (0, "/\n"), result.stderr
    result = as_unknown_user(tmp_path, "-m", "collagan_dist", "doctor")
    assert result.returncode == 0 and "failed" not in result.stdout and "Traceback" not in result.stderr
    # A home that there is stays.
    assert as_unknown_user(tmp_path, "-c", code, HOME=str(tmp_path)).stdout == f"{tmp_path}\n"


def test_a_folder_of_tars_that_cannot_be_read_is_no_empty_one(tmp_path):
    (tmp_path / "set/val").mkdir(parents=True)
    for name in ("x.tar", "val/y.tar"):
        (tmp_path / "set" / name).write_bytes(b"")
    (tmp_path / "set/val").chmod(0)
    result = as_unknown_user(tmp_path, "-m", "collagan_dist", "adopt", "set")
    assert result.returncode == 3 and f"{tmp_path}/set/val: cannot be read (Permission denied), so" in result.stderr, (
        result.stderr
    )


def test_a_full_tmp_is_said_by_what_needs_it_and_stops_nothing_else(shards, tmp_path):
    """Ray, a compiler, and copies of a URL's shards; training and its DeepSpeed need none of it."""
    place = f"/var/tmp/{tmp_path.parent.parent.name}-{os.getpid()}"
    ours, small = f"{sys.executable} -m collagan_dist", " ".join(SMALL)
    commands = {
        "sweep": (
            3,
            f"sweep demo --space space.yaml --data shards --out out --trials 1 {small}",
            "/tmp: Ray needs 16 MB there, ",
        ),
        "compile": (
            3,
            f"train demo --data shards --run compiled {small} --set runtime.compile=true",
            "/tmp: torch.compile needs 16 MB",
        ),
        "verify": (3, "verify --deep http://127.0.0.1:$port", "collagan-verify-"),
        "deepspeed": (0, f"train demo --data shards --run run {small} --set runtime.engine=deepspeed", "2 steps done"),
        "doctor": (
            0,
            "doctor",
            "temporary           /tmp has 0 MB free, and `collagan sweep` without --ray needs it, refused under 16 MB",
        ),
    }
    lines = [f"echo '== {name}'; {ours} {words} 2>&1; echo \"code $?\"" for name, (_, words, _) in commands.items()]
    script = f"""
        mkdir {place} && cp -r {shards.folder} {place}/shards && echo '{SPACE}' > {place}/space.yaml && cd {place}
        unset TMPDIR; mount -t tmpfs -o size=40k tmpfs /tmp
        (cd shards; exec {sys.executable} -u -m http.server 0 --bind 127.0.0.1 > ../port 2>/dev/null) & server=$!
        until port=$(grep -oP 'port \\K[0-9]+' port); do sleep 0.1; done
        {chr(10).join(lines)}
        kill $server; ls -A /tmp; cd /; rm -r {place}
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    found = dict(part.split("\n", 1) for part in result.stdout.split("== ")[1:])
    assert list(found) == list(commands), result.stdout + result.stderr
    for name, (code, _, said) in commands.items():
        assert f"\ncode {code}\n" in f"\n{found[name]}" and said in found[name], f"{name}: {found[name]}"
        assert "Traceback" not in found[name], found[name]


def test_a_command_without_room_for_checkpoints_is_refused(shards, tmp_path):
    """Before it starts, with the numbers; nothing is left behind."""
    small, ours = " ".join(SMALL), f"{sys.executable} -m collagan_dist"
    disk, space = tmp_path / "disk", tmp_path / "space.yaml"
    disk.mkdir()
    space.write_text(SPACE)
    script = f"""
        mount -t tmpfs -o size=3m none {disk}; cd {disk}
        {ours} train demo --data {shards.folder} --run run {small} --set model.widths.generator=32; echo "code $?"
        {ours} sweep demo --space {space} --data {shards.folder} --out out --trials 9 {small}; echo "code $?"
        {ours} train demo --data {shards.folder} --run run {small}; echo "code $?"
        ls -A out
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    assert [line for line in result.stdout.splitlines() if line.startswith("code")] == ["code 3", "code 3", "code 0"], (
        result.stderr
    )
    assert result.stdout.splitlines()[-1] == ".lock"
    run, sweep, works = [line for line in result.stderr.splitlines() if "disk: " in line]
    assert re.match(
        r"collagan train: disk: 1 more checkpoint of \d+\.\d MB in run, .* in all; free: 3.1 MB; make room", run
    )
    assert re.match(
        r"collagan sweep: disk: 9 more trials with a checkpoint of \d+\.\d MB each, and 2 more of each of \d+ that run",
        sweep,
    )
    assert works.startswith("disk: 1 more checkpoint of ") and works.endswith("; free: 3.1 MB")


def test_a_sweep_needs_tmp_for_ray(shards, tmp_path):
    place = f"/var/tmp/{tmp_path.parent.parent.name}-{os.getpid()}"
    script = f"""
        mkdir {place} && cp -r {shards.folder} {place}/shards && echo '{SPACE}' > {place}/space.yaml && mount -t tmpfs -o ro tmpfs /tmp && cd {place}
        {sys.executable} -m collagan_dist sweep demo --space space.yaml --data shards --out out --trials 1 --set schedule.steps=2
        echo "code $?"; cd /; rm -r {place}
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "code 2", result.stdout + result.stderr
    assert "/tmp: no temporary folder can be made there (Read-only file system); mount" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>Log in</title>", b"\xef\xbb\xbf\n<HTML lang=en>"])
def test_a_login_page_in_place_of_a_manifest(tmp_path, capsys, page):
    (tmp_path / "manifest.json").write_bytes(page)
    with serving(tmp_path) as server:
        for command in (["verify", server.url], ["train", "demo", "--data", server.url, "--run", tmp_path / "run"]):
            code, text = run(capsys, *command)
            assert code == 3 and f"{server.url}/manifest.json: what comes is a web page" in text, text
            assert len(text.splitlines()) == 1
