"""Reading and planning a data set of 10⁶ pictures, and files of 20 kB of brackets: CPU seconds and memory.

What `collagan pack` does before and after the pictures themselves: it reads the lists and the folder, plans the shards and
describes the source. Each measurement has a process of its own; versions alternate, medians of ROUNDS.
`python -m benchmarks.lists before=CHECKOUT now=.` measures these checkouts and keeps what the result file has of others.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import save
from benchmarks.faces import POINTS

PICTURES, ROUNDS = (int(os.environ.get(name, usual)) for name, usual in (("PICTURES", 1_000_000), ("ROUNDS", 3)))
BRACKETS, LIMIT_SECONDS = 20_000, 600
PLAN = (
    "import json, sys\n"
    "from collagan_dist.data.packing import pack, shard_job\n"
    "from collagan_dist.data.readers.recipe import Recipe\n"
    "from collagan_dist.data.readers.registry import READERS\n"
    "recipe = Recipe(**json.loads(sys.argv[1])); samples = READERS[recipe.dataset](recipe)\n"
    "jobs = list(shard_job.plan_jobs(recipe, samples))\n"
    "getattr(pack, '_describe_source', lambda *_: None)(recipe, samples)"
)


def main() -> None:
    checkouts = {"now": Path.cwd()}
    if sys.argv[1:]:
        checkouts = {name: Path(place).resolve() for name, _, place in (word.partition("=") for word in sys.argv[1:])}
    file = Path(__file__).with_suffix(".json")
    former = json.loads(file.read_text()) if file.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        commands = lists(Path(folder, "set")) | brackets(Path(folder))
        # Versions alternate within a round, so that a busy machine is busy for all of them.
        found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {v: [] for v in checkouts} for name in commands}
        for _ in range(ROUNDS):
            for name, words in commands.items():
                for version, place in checkouts.items():
                    found[name][version].append(measure(place, words))
    result = {
        name: former.get(name, {}) | {version: summary(values) for version, values in versions.items()}
        for name, versions in found.items()
    }
    save(__file__, result | {"commits": former.get("commits", {}) | {v: commit(p) for v, p in checkouts.items()}})


def summary(values: list[tuple[float, float]]) -> dict[str, float]:
    seconds, megabytes = (statistics.median(column) for column in zip(*values, strict=True))
    return {"cpu seconds": round(seconds, 1), "megabytes": round(megabytes), "rounds": len(values)}


def commit(place: Path) -> str:
    words = ["git", "-C", str(place), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def measure(checkout: Path, words: list[str]) -> tuple[float, float]:
    """CPU seconds and megabytes of a Python process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    limited = ["timeout", "-k", "1", str(LIMIT_SECONDS), sys.executable, *words]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(limited, cwd=checkout, env=environment, stdout=output, stderr=output)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    assert "Traceback" not in text, text[-2000:]
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def lists(root: Path) -> dict[str, list[str]]:
    """The same pictures in CelebA's layout and as a folder with a CSV; all pictures are links to few files, never opened."""
    pictures = root / "Img/img_celeba"
    for folder in (pictures, root / "Anno", root / "Eval"):
        folder.mkdir(parents=True)
    draw = random.Random(0).randrange
    columns = [f"{part}_{axis}" for part in POINTS for axis in "xy"]
    ours = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
    with (
        (root / "Anno/list_landmarks_celeba.txt").open("w") as landmarks,
        (root / "Eval/list_eval_partition.txt").open("w") as splits,
        (root / "Anno/identity_CelebA.txt").open("w") as people,
        (root / "faces.csv").open("w") as table,
    ):
        landmarks.write(f"{PICTURES}\n{' '.join(columns)}\n")
        table.write(f"file,{','.join(f'{part}_{axis}' for part in ours for axis in 'xy')},split,identity\n")
        for number in range(PICTURES):
            if number % 50_000 == 0:  # a file has so many links at most
                (first := root / f"{number}.jpg").touch()
            name, person, split = f"{number + 1:07d}.jpg", draw(10_000), max(0, number % 10 - 7)
            (pictures / name).hardlink_to(first)
            values = [draw(80), 60, 100 + draw(80), 60, 90, 90, 70, 130, 110, 130]
            landmarks.write(f"{name} {' '.join(map(str, values))}\n")
            splits.write(f"{name} {split}\n")
            people.write(f"{name} {person}\n")
            table.write(f"{name},{','.join(map(str, values))},{('train', 'valid', 'test')[split]},{person}\n")
    celeba = {"dataset": "celeba", "root": str(root), "out": "out"}
    folder = {"dataset": "folder", "root": str(pictures), "landmarks": str(root / "faces.csv"), "out": "out"}
    named = {"CelebA's lists of": celeba, "a folder with a CSV of": folder}
    return {f"{what} {PICTURES} pictures": ["-c", PLAN, json.dumps(tree)] for what, tree in named.items()}


def brackets(root: Path) -> dict[str, list[str]]:
    """Commands that read a file of brackets, and refuse it."""
    (root / "bad.yaml").write_text("[" * BRACKETS)
    (root / "bad").mkdir()
    (root / "bad/manifest.json").write_text("[" * BRACKETS)
    start = ["-m", "collagan_dist"]
    return {
        f"pack: a recipe of {BRACKETS} brackets": [*start, "pack", str(root / "bad.yaml")],
        f"verify: a manifest of {BRACKETS} brackets": [*start, "verify", str(root / "bad")],
    }


if __name__ == "__main__":
    main()
