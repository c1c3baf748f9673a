"""The design of README.md: what is trained in each stage, which comparisons are planned, and the results so far."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

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
UNITS = {"psnr_hole": "dB", "dice": "points", "landmark_error": "%"}
LABELS = {"psnr_hole": "PSNR in the hole", "dice": "Dice", "landmark_error": "landmark error, relative"}


# The comparisons of which effects.md says how they change from stage 1.
CHANGED = (("psnr_hole", "M*_isd", "M*_i"), ("landmark_error", "M*_isd", "M_d"))

Row = dict[str, str]


def read_results() -> list[Row]:
    if not RESULTS.exists():
        return []
    with RESULTS.open() as file:
        return list(csv.DictReader(file))
