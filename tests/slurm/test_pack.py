"""slurm/pack.sh: an array packs the bytes of one process, whatever its range and whatever happens to a task."""

import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, collagan
from tests.data.packed import contents
from tests.slurm.cluster import Cluster

pytestmark = pytest.mark.slurm
PACK = ROOT / "slurm/pack.sh"
SMALL = ["--cpus-per-task=1", "--time=5"]
STUCK = "Img/img_celeba/000031.jpg"


@pytest.fixture(scope="module")
def packed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file that one plain `collagan pack` makes: 9 shards, their indexes, manifest and quarantine."""
    folder = tmp_path_factory.mktemp("packed")
    collagan("pack", recipe_over(drawn, folder), "--workers", 1, cwd=folder)
    files = contents(folder / "packed")
    assert len(files) == 2 * 9 + 2
    return files


def recipe_over(faces: Path, folder: Path) -> str:
    """The name of a recipe in `folder`, whose `out` is relative to it."""
    settings = "labels: Label/img_celeba, out: packed, samples_per_shard: 7, store_size: 88"
    (folder / "faces.yaml").write_text(f"{{dataset: celeba, root: {faces}, {settings}}}")
    return "faces.yaml"


def after(array: str) -> list[str]:
    return [f"--dependency=afterok:{array}", "--kill-on-invalid-dep=yes", *SMALL]


def test_any_range_of_an_array(cluster, drawn, tmp_path, packed):
    """Three data sets at once, by arrays counted from 0, from 1 and in steps; each is merged behind its array."""
    jobs = {}
    for tasks in ("0-2", "1-3", "4-12:4"):
        folder = tmp_path / tasks
        folder.mkdir()
        recipe = recipe_over(drawn, folder)
        array = cluster.submit(PACK, recipe, options=[f"--array={tasks}", *SMALL], cwd=folder)
        merge = cluster.submit(PACK, recipe, "--merge", options=after(array), cwd=folder)
        jobs[folder] = array, merge
    for folder, (array, merge) in jobs.items():
        assert cluster.wait(merge, 120).state == "COMPLETED", cluster.log(array) + cluster.log(merge)
        assert sorted(re.findall(r"part (\S+) done", cluster.log(array))) == ["0/3", "1/3", "2/3"]
        assert contents(folder / "packed") == packed


def test_a_list_of_tasks_is_refused(cluster, tmp_path):
    array = cluster.submit(PACK, "faces.yaml", options=["--array=0,1,5", *SMALL], cwd=tmp_path)
    assert [task.exit_code for task in cluster.wait_all(array)] == [2, 2, 2]
    assert "give the whole range again" in cluster.log(array)


def test_a_project_without_collagan_on_path(cluster, drawn, tmp_path, packed):
    """The .venv beside slurm/ is found from the spool copy of the script; without an array, all is packed at once."""
    project = tmp_path / "project"
    for part in ("slurm", "cluster"):
        shutil.copytree(ROOT / part, project / part)
    without = cluster.submit(project / "slurm/pack.sh", "faces.yaml", options=SMALL, cwd=tmp_path, collagan=False)
    assert cluster.wait(without).exit_code == 2 and "run 'make setup'" in cluster.log(without)
    (project / ".venv").symlink_to(sys.prefix)
    recipe = recipe_over(drawn, tmp_path)
    job = cluster.submit(project / "slurm/pack.sh", recipe, options=SMALL, cwd=tmp_path, collagan=False)
    assert cluster.wait(job).exit_code == 0, cluster.log(job)
    assert contents(tmp_path / "packed") == packed


@contextmanager
def stuck_at(photo: Path) -> Iterator[None]:
    """A picture of 60 megapixels, which takes seconds to decode: time to stop whoever packs it in the middle of its shard."""
    content = photo.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (1000, 7500, 3), np.uint8)
    Image.fromarray(np.tile(noise, (8, 1, 1))).save(photo, "JPEG", quality=90, progressive=True)
    yield
    photo.write_bytes(content)


def writer(folder: Path) -> tuple[int, str] | None:
    """(process id, file) of the process that writes a shard."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended, or closed the file
            if str(link.readlink()).startswith(f"{folder}/packed/.") and link.readlink().suffix == ".partial":
                return int(link.parts[2]), str(link.readlink())
    return None


def reach(cluster: Cluster, array: str, folder: Path) -> str:
    """The task that is left when the other two have ended: the one that is stuck, with a shard begun."""

    def running() -> list[str]:
        return [task for task in (f"{array}_{number}" for number in range(3)) if not cluster.job(task).ended]

    def stopped() -> bool:
        before = writer(folder)
        time.sleep(0.7)  # a shard of small pictures takes less
        if before is None or writer(folder) != before:
            return False
        os.kill(before[0], signal.SIGSTOP)
        return True

    cluster.until(stopped, 60, "a shard that takes long", array)
    cluster.until(lambda: len(running()) == 1, 60, "two tasks to end", array)
    (task,) = running()
    return task


def test_a_cancelled_task_is_made_up_for(cluster, copy_of_drawn, tmp_path, packed):
    """--merge before all is there names what is missing (exit 3); the same sbatch line packs only that."""
    recipe = recipe_over(copy_of_drawn, tmp_path)
    submit = {"options": ["--array=0-2", *SMALL], "cwd": tmp_path}
    with stuck_at(copy_of_drawn / STUCK):
        array = cluster.submit(PACK, recipe, **submit)
        task = reach(cluster, array, tmp_path)
        cluster.cancel(task)
        assert cluster.wait(task).state == "CANCELLED"
    built = {p.name for p in (tmp_path / "packed").glob("*.tar")}
    early = cluster.submit(PACK, recipe, "--merge", options=SMALL, cwd=tmp_path)
    assert cluster.wait(early).exit_code == 3
    missing = set(re.findall(r"\w+-\d+\.tar", cluster.log(early)))
    assert missing and missing | built == {name for name in packed if name.endswith(".tar")} and not missing & built
    times = {name: (tmp_path / "packed" / name).stat().st_mtime_ns for name in built}
    again = cluster.submit(PACK, recipe, **submit)
    assert {t.exit_code for t in cluster.wait_all(again)} == {0}, cluster.log(again)
    assert times == {name: (tmp_path / "packed" / name).stat().st_mtime_ns for name in built}
    collagan("pack", recipe, "--merge", cwd=tmp_path)
    assert contents(tmp_path / "packed") == packed


def test_a_node_is_lost_in_the_middle(cluster, copy_of_drawn, tmp_path, packed):
    """Slurm requeues the task, it continues, and the merge that was queued behind the array runs after it."""
    recipe = recipe_over(copy_of_drawn, tmp_path)
    with stuck_at(copy_of_drawn / STUCK):
        array = cluster.submit(PACK, recipe, options=["--array=0-2", "--exclusive", *SMALL], cwd=tmp_path)
        merge = cluster.submit(PACK, recipe, "--merge", options=after(array), cwd=tmp_path)
        task = reach(cluster, array, tmp_path)
        node = cluster.job(task).nodes
        processes = cluster.on(node, "pgrep", "--full", "collagan pack").split()
        assert len(processes) == 1 + 1  # --workers is --cpus-per-task, whatever cores the machine has
        cluster.kill_node(node)
        cluster.declare_down(node)
    try:
        assert cluster.wait(merge).state == "COMPLETED", cluster.log(array) + cluster.log(merge)
        assert cluster.job(task).restarts == 1 and cluster.job(task).nodes != node
        assert contents(tmp_path / "packed") == packed
    finally:
        cluster.start_node(node)
