"""Does collaborative learning help? The trainings of README.md's design, by the ordinary commands, and what they show.

    python -m benchmarks.collaboration.study run STAGE --out DIR [--jobs 2]     the same command continues
    python -m benchmarks.collaboration.study show                              effects.md and effects.png

A finished training is a row of results.csv, beside this file. What has a row is not trained again, on any machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import collagan, where
from benchmarks.collaboration.design import (
    COLUMNS,
    HERE,
    METRICS,
    POSITIONS,
    RESULTS,
    STAGES,
    Cell,
    Faces,
    Row,
    read_results,
)
from benchmarks.collaboration.effects import show

PARTITION, LANDMARKS = "Eval/list_eval_partition.txt", "Anno/list_landmarks_celeba.txt"


def prepare(faces: Faces, out: Path) -> Path:
    """Draw and pack what is missing; return the shards."""
    shards, drawn = out / "packed" / faces.name, out / "drawn" / faces.name
    if (shards / "manifest.json").exists():
        return shards
    whole = out / "drawn" / Faces(coupling=faces.coupling).name
    coupling = [] if faces.coupling is None else ["--coupling", faces.coupling]
    collagan("draw", whole, "--count", 10_000, "--seed", 31, *coupling, quiet=True)
    if faces.train < 8000 and not (drawn / PARTITION).exists():
        _write_fewer(whole, drawn, faces.train)
    root = drawn if faces.train < 8000 else whole
    store = f"store_size={faces.size * 11 // 8}"
    collagan("pack", "shards/drawn.yaml", "--root", root, "--out", shards, "--set", store, quiet=True)
    return shards


def _write_fewer(whole: Path, drawn: Path, count: int) -> None:
    """The same pictures with fewer training faces: the first ones of the list."""
    for part in ("Img", "Label"):
        (drawn / part).parent.mkdir(parents=True, exist_ok=True)
        (drawn / part).symlink_to((whole / part).absolute())
    lines = (whole / PARTITION).read_text().splitlines(keepends=True)
    training = [line for line in lines if line.split()[1] == "0"][:count]
    kept = training + [line for line in lines if line.split()[1] != "0"]
    names = {line.split()[0] for line in kept}
    _, head, *points = (whole / LANDMARKS).read_text().splitlines(keepends=True)
    points = [line for line in points if line.split()[0] in names]
    for file, text in ((LANDMARKS, "".join([f"{len(points)}\n", head, *points])), (PARTITION, "".join(kept))):
        (drawn / file).parent.mkdir(exist_ok=True)
        (drawn / file).write_text(text)


def train(stage: str, cell: Cell, model: str, seed: int, out: Path) -> Row:
    """Train and evaluate one model by `collagan reproduce`, at O1 to O6 and with block holes; return its row."""
    began = time.monotonic()
    folder = out / "runs" / stage / cell.name.replace(" ", "-").replace(",", "") / f"{model}-{seed}"
    sets = [word for key, value in (cell.sets | {"seed": seed}).items() for word in ("--set", f"{key}={value}")]
    data = out / "packed" / cell.faces.name
    options = ["--data", data, "--out", folder, "--models", model, "--figures", "", "--ranks", 1]
    collagan("reproduce", HERE / "study.yaml", *options, *sets, quiet=True)
    run = folder / "runs" / model
    found = evaluation(run, "block")
    if found is None:  # models of Table 1 alone
        collagan("evaluate", run, "--hole", "block", quiet=True)
        found = evaluation(run, "block") or {}
    row = {"stage": stage, "cell": cell.name, "model": model, "seed": str(seed)}
    row |= {name: f"{value:.6g}" for name in METRICS if (value := _mean(found.get(name))) is not None}
    for position in POSITIONS:
        if (at := evaluation(run, position)) is not None and "psnr" in at:
            row[position] = f"{at['psnr']:.6g}"
    shutil.rmtree(run / "checkpoints")
    return row | {"seconds": f"{time.monotonic() - began:.0f}", "commit": where()["commit"]}


def evaluation(run: Path, hole: str) -> dict[str, object] | None:
    path = run / "evaluation" / f"test-{hole}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _mean(value: object) -> float | None:
    found = value.get("mean") if isinstance(value, dict) else value
    return float(found) if isinstance(found, int | float) else None


def jobs(stages: Sequence[str]) -> Iterator[tuple[str, Cell, str, int]]:
    """Yield what has no row yet, seed by seed: an interrupted stage has all models alike."""
    done = {(row["stage"], row["cell"], row["model"], int(row["seed"])) for row in read_results()}
    for stage in stages:
        for cell in STAGES[stage]:
            for seed in range(cell.seeds):
                for model in cell.models:
                    if (stage, cell.name, model, seed) not in done:
                        yield stage, cell, model, seed


def run(stages: Sequence[str], out: Path, workers: int) -> None:
    todo, lock = list(jobs(stages)), threading.Lock()
    for faces in dict.fromkeys(cell.faces for _, cell, _, _ in todo):
        prepare(faces, out)

    def do(job: tuple[str, Cell, str, int]) -> None:
        row = train(*job, out)
        with lock:
            new = not RESULTS.exists()
            with RESULTS.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(*row.values(), flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(do, todo))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("stages", nargs="+", choices=tuple(STAGES))
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--jobs", type=int, default=2)
    commands.add_parser("show")
    args = parser.parse_args()
    if args.command == "run":
        run(args.stages, args.out, args.jobs)
    show()


if __name__ == "__main__":
    main()
