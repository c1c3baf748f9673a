"""Places that need not exist: a home, a passwd entry, /tmp; and what a proxy sends in place of a file."""

import os
import subprocess
import sys

import pytest

from tests.data.server import serving
from tests.faults.test_bad_input import run
from tests.faults.test_packing import private_mounts

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


def test_a_sweep_needs_tmp_for_ray(shards, tmp_path):
    space = "{metric: psnr_hole, mode: max, scheduler: none, search: random, space: {optim.generator.lr: {loguniform: [1.0e-4, 1.0e-3]}}}"
    place = f"/var/tmp/{tmp_path.parent.parent.name}-{os.getpid()}"
    script = f"""
        mkdir {place} && cp -r {shards.folder} {place}/shards && echo '{space}' > {place}/space.yaml && mount -t tmpfs -o ro tmpfs /tmp && cd {place}
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
