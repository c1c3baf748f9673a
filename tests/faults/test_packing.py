"""Faults while shards are built, by the rows of docs/faults.md that the tests beside the code do not cover."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.errors import DataError
from tests.data.packed import contents, recipe
from tests.faults.damages import rounds


def recipe_file(root: Path, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"{{dataset: celeba, root: {root}, labels: Label/img_celeba, out: x, samples_per_shard: 4, store_size: 88}}"
    )
    return path


def private_mounts(command: str) -> list[str]:
    """A shell whose mounts nobody else sees; skips where the machine does not allow them."""
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode:
        pytest.skip("needs the right to mount (root)")
    return ["unshare", "-m", "bash", "-c", command]


def test_row_7_a_full_disk(drawn, tmp_path):
    """Nothing under a final name is partial, path and bytes are named, and the same command goes on when there is room."""
    pack(recipe(drawn, tmp_path / "whole", samples_per_shard=4), workers=1)
    out = tmp_path / "small"
    out.mkdir()
    command = f"{sys.executable} -m collagan_dist pack {recipe_file(drawn, tmp_path)} --out {out}/shards --workers 2"
    script = f"""
        mount -t tmpfs -o size=400k none {out} && {command}; echo "code $?"
        ls -A {out}/shards; for tar in {out}/shards/*.tar; do tar tf $tar >/dev/null || echo "partial $tar"; done
        mount -o remount,size=50m {out} && {command}; echo "code $?"
        cp -r {out}/shards {tmp_path}/copy
    """
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    first, second = result.stdout.split("code ")[1:]
    assert first.startswith("3\n") and "manifest.json" not in first and "partial" not in first, first
    assert "Traceback" not in result.stderr and result.stderr.count("no space left after") == 1, result.stderr
    assert "are free there; make room" in result.stderr
    assert second.startswith("0\n"), result.stderr
    assert contents(tmp_path / "copy") == contents(tmp_path / "whole")


@rounds(1, 20)
def test_row_8_killed_while_packing(drawn, tmp_path, rounds, record):
    """kill -9 at random moments: shards before it are whole, nothing stays alive, and the same command gives the same bytes."""
    path, whole = recipe_file(drawn, tmp_path), tmp_path / "whole"
    command = [sys.executable, "-m", "collagan_dist", "pack", str(path), "--workers", "2", "--out"]
    length = seconds([*command, whole])
    start = 0.9 * seconds([*command, whole])  # with nothing to do
    midway = 0
    for number in range(rounds):
        out = tmp_path / f"killed{number}"
        child = subprocess.Popen([*command, out], stdout=-3, stderr=-3, start_new_session=True)
        time.sleep(start + (length - start) * (number + 0.5) / rounds)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        last = time.monotonic() + 5
        while (alive := living(child.pid)) and time.monotonic() < last:
            time.sleep(0.05)
        assert not alive, "workers outlive a killed pack"
        tars = list(out.glob("*.tar")) if out.exists() else []
        assert all(tar.read_bytes() == (whole / tar.name).read_bytes() for tar in tars)
        if out.exists() and not (out / "manifest.json").exists():
            midway += bool(tars)
            with pytest.raises(DataError, match=r"no manifest\.json"):
                read_manifest(out)
        subprocess.run([*command, out], check=True, capture_output=True)
        assert contents(out) == contents(whole)
    record("8", rounds=rounds, killed_midway=midway)


def seconds(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def living(session: int) -> list[str]:
    """Processes of a session that are not yet buried."""
    states = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True).stdout.split()
    return [state for state in states if not state.startswith("Z")]
