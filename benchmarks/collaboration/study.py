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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev, variance

from benchmarks import collagan, where
from collagan_dist.reproduce.statistics import freedom, holm, interval, p_value

HERE = Path(__file__).parent
RESULTS, EFFECTS = HERE / "results.csv", HERE / "effects.md"
# The parts that `collagan evaluate --hole` hides.
POSITIONS = {
    "O1": "left eye",
    "O2": "right eye",
    "O3": "both eyes",
    "O4": "left half",
    "O5": "right half",
    "O6": "lower face",
}
METRICS = ("psnr_hole", "ssim_hole", "dice", "landmark_error")
COLUMNS = ("stage", "cell", "model", "seed", *METRICS, *POSITIONS, "seconds", "commit")
TEN = ("M_i", "M*_i", "M_d", "M_s", "M_id", "M_is", "M_isd", "M*_id", "M*_is", "M*_isd")
THREE = ("M_d", "M*_i", "M*_isd")
PARTITION, LANDMARKS = "Eval/list_eval_partition.txt", "Anno/list_landmarks_celeba.txt"


@dataclass(frozen=True)
class Faces:
    """Drawn faces: `train` of them are trained on, all validation and test faces stay; stored at 1.375 x `size` pixels."""

    train: int = 8000
    size: int = 32
    coupling: float | None = None

    @property
    def name(self) -> str:
        return f"faces{self.train}-{self.size}" + ("" if self.coupling is None else f"-coupling{self.coupling:g}")


@dataclass(frozen=True)
class Cell:
    """Trainings that differ in model and seed alone."""

    name: str
    models: Sequence[str] = THREE
    seeds: int = 3
    faces: Faces = Faces()
    sets: dict[str, object] = field(default_factory=dict)


def _steps(steps: int) -> dict[str, object]:
    return {"schedule.steps": steps, "schedule.adv_from": steps, "checkpoint.every": steps}


_ADVERSARY = {"data.image_size": 64, "model.widths.generator": 24, **_steps(2600), "schedule.adv_from": 2340}
STAGES = {
    "1": (Cell("width 16, 3,000 steps, 8,000 faces", TEN, seeds=5),),
    "2": (
        Cell("width 8", sets={"model.widths.generator": 8}),
        Cell("width 32", sets={"model.widths.generator": 32}),
        Cell("800 steps", sets=_steps(800)),
        Cell("10,000 steps", sets=_steps(10_000)),
        Cell("100 faces", faces=Faces(train=100)),
        Cell("1,000 faces", faces=Faces(train=1000)),
    ),
    "dial": (Cell("coupling 0", faces=Faces(coupling=0.0)), Cell("coupling 0.5", faces=Faces(coupling=0.5))),
    "3": (Cell("64x64, width 24, adversary", faces=Faces(size=64), sets=_ADVERSARY),),
}

# (what it is about, metric, model, against). Those of stage 1 are corrected together.
PLANNED = (
    ("scheme", "psnr_hole", "M*_i", "M_i"),
    ("collaboration", "psnr_hole", "M*_isd", "M*_i"),
    ("collaboration", "psnr_hole", "M_isd", "M_i"),
    ("both", "psnr_hole", "M*_isd", "M_i"),
    ("collaboration", "dice", "M*_isd", "M_s"),
    ("collaboration", "dice", "M_isd", "M_s"),
    ("collaboration", "landmark_error", "M*_isd", "M_d"),
    ("collaboration", "landmark_error", "M_isd", "M_d"),
)
EXPLORED = (
    ("scheme", "psnr_hole", "M*_id", "M_id"),
    ("scheme", "psnr_hole", "M*_is", "M_is"),
    ("scheme", "psnr_hole", "M*_isd", "M_isd"),
    ("collaboration", "psnr_hole", "M*_id", "M*_i"),
    ("collaboration", "psnr_hole", "M*_is", "M*_i"),
    ("collaboration", "psnr_hole", "M_id", "M_i"),
    ("collaboration", "psnr_hole", "M_is", "M_i"),
    ("collaboration", "dice", "M*_is", "M_s"),
    ("collaboration", "dice", "M_is", "M_s"),
    ("collaboration", "landmark_error", "M*_id", "M_d"),
    ("collaboration", "landmark_error", "M_id", "M_d"),
)
UNITS = {"psnr_hole": "dB", "dice": "%", "landmark_error": "%"}
LABELS = {"psnr_hole": "PSNR in the hole", "dice": "Dice", "landmark_error": "landmark error, relative"}


Row = dict[str, str]


def read_results() -> list[Row]:
    if not RESULTS.exists():
        return []
    with RESULTS.open() as file:
        return list(csv.DictReader(file))


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


@dataclass(frozen=True)
class Effect:
    about: str
    metric: str
    model: str
    other: str
    value: float
    low: float
    high: float
    p: float
    seeds: tuple[int, int]


def effect(rows: Sequence[Row], about: str, metric: str, model: str, other: str) -> Effect | None:
    """Return a difference of means over seeds with its 95 % interval (Welch); relative to the other's for landmark errors."""
    sides = [[float(row[metric]) for row in rows if row["model"] == name and row[metric]] for name in (model, other)]
    if min(map(len, sides)) < 2:
        return None
    # Landmark errors of other sizes and widths compare as ratios.
    unit = fmean(sides[1]) / 100 if metric == "landmark_error" else 0.01 if metric == "dice" else 1.0
    value = (fmean(sides[0]) - fmean(sides[1])) / unit
    parts = [(variance(side) / len(side) / unit**2, len(side) - 1) for side in sides]
    degrees, se = freedom(parts), sum(part for part, _ in parts) ** 0.5
    low, high = interval(value, se, degrees)
    return Effect(
        about, metric, model, other, value, low, high, p_value(value, se, degrees) or 0.0, tuple(map(len, sides))
    )


def show() -> None:
    rows = read_results()
    lines = [
        "# Effects",
        "",
        "Mean over seeds ± standard deviation between seeds; differences with 95 % intervals over seeds (Welch).",
        "",
    ]
    found: dict[str, list[Effect]] = {}
    for stage, cells in STAGES.items():
        for cell in cells:
            here = [row for row in rows if (row["stage"], row["cell"]) == (stage, cell.name)]
            if here:
                lines += [f"## Stage {stage}: {cell.name}", "", *_models(here), ""]
                effects = [one for plan in PLANNED if (one := effect(here, *plan)) is not None]
                found[cell.name] = effects
                lines += _table("planned", effects, corrected=stage == "1")
                lines += _table(
                    "explored", [one for plan in EXPLORED if (one := effect(here, *plan)) is not None], False
                )
                lines += _at_positions(here)
    EFFECTS.write_text("\n".join(lines) + "\n")
    if found:
        _draw(found)


def _models(rows: Sequence[Row]) -> list[str]:
    lines = [
        "| model | seeds | PSNR in the hole, dB | SSIM in the hole | PSNR at O1 to O6, dB | Dice | landmark error, px |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in TEN:
        mine = [
            row | {"O": str(fmean(float(row[o]) for o in POSITIONS)) if row["O1"] else ""}
            for row in rows
            if row["model"] == model
        ]
        if mine:
            cells = [
                _spread([float(row[name]) for row in mine if row[name]])
                for name in ("psnr_hole", "ssim_hole", "O", "dice", "landmark_error")
            ]
            lines.append(f"| {model.replace('*', chr(92) + '*')} | {len(mine)} | {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _table(kind: str, effects: Sequence[Effect], corrected: bool) -> list[str]:
    if not effects:
        return []
    adjusted = holm([one.p for one in effects])
    head = f"| {kind} | about | metric | difference | 95 % | seeds | p |" + (" p (Holm) |" if corrected else "")
    lines = [head, "|---|---|---|---|---|---|---|" + ("---|" if corrected else "")]
    for one, p in zip(effects, adjusted, strict=True):
        names = f"{one.model} − {one.other}".replace("*", "\\*")
        numbers = f"{one.value:+.2f} {UNITS[one.metric]} | {one.low:+.2f} to {one.high:+.2f} | {one.seeds[0]}, {one.seeds[1]} | {one.p:.2g} |"
        lines.append(
            f"| {names} | {one.about} | {LABELS[one.metric]} | {numbers}" + (f" {p:.2g} |" if corrected else "")
        )
    return [*lines, ""]


def _at_positions(rows: Sequence[Row]) -> list[str]:
    """Return the differences of PSNR at each position, for the planned comparisons of completion."""
    lines = [
        f"| explored: PSNR, dB | {' | '.join(f'{name} {part}' for name, part in POSITIONS.items())} |",
        "|---|" + "---|" * len(POSITIONS),
    ]
    for about, metric, model, other in PLANNED:
        if metric == "psnr_hole":
            found = [effect(rows, about, position, model, other) for position in POSITIONS]
            cells = [f"{one.value:+.2f} ({one.low:+.2f} to {one.high:+.2f})" for one in found if one is not None]
            if cells:
                lines.append(f"| {model} − {other} | {' | '.join(cells)} |".replace("*", "\\*"))
    return [*lines, ""]


def _draw(found: dict[str, list[Effect]]) -> None:
    """Draw the collaboration's effect in every cell, one panel a metric."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.45 * len(found) + 1.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    wanted = (("psnr_hole", "M*_i"), ("dice", "M_s"), ("landmark_error", "M_d"))
    for axes, (metric, other) in zip(panels, wanted, strict=True):
        axes.axvline(0, color="0.6", linewidth=1)
        for place, effects in enumerate(found.values()):
            for one in effects:
                if (one.metric, one.model, one.other) == (metric, "M*_isd", other):
                    axes.errorbar(
                        one.value,
                        place,
                        xerr=[[one.value - one.low], [one.high - one.value]],
                        fmt="o",
                        color="#1f5fa8",
                        capsize=3,
                    )
        axes.set_title(f"{LABELS[metric]}: M*_isd − {other}", fontsize=9)
        axes.set_xlabel(UNITS[metric] + (" (lower is better)" if metric == "landmark_error" else " (higher is better)"))
        axes.set_yticks(range(len(found)), list(found))
    panels[0].invert_yaxis()
    figure.savefig(HERE / "effects.png", dpi=130, metadata={"Software": None})


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
