"""The numbers that the paper prints (paper.yaml), and where ours come from: which model, hole and metric of each cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from collagan_dist.config import strict_yaml
from collagan_dist.config.models import CONTROLS

TABLES: Final = (1, 2, 3)
METRICS: Final = ("ssim", "psnr")  # of Table 1, in the order of its cells
# Models that --seeds trains several times: the argument rests on their differences. M*_i tells scheme and collaboration apart.
SEEDED: Final = ("M_i", "M*_i", "M_isd", "M*_isd")
# What the columns of Table 1 stand for (docs/paper.md): the boxes that the paper's words name, or those that its numbers fit.
Reading = Literal["numbers", "words"]


@dataclass(frozen=True)
class Score:
    """Where a number of a table's cell is in an evaluation: the JSON's `key`, and the class or point in it, or None.

    `factor` converts the JSON's unit into the table's: 100 for percent.
    """

    key: str
    part: str | None
    hole: str
    blended: bool
    factor: float
    higher_is_better: bool


@cache
def paper() -> dict[str, Any]:
    """Return paper.yaml."""
    name = "paper.yaml"
    text = resources.files("collagan_dist.reproduce").joinpath(name).read_text()
    return strict_yaml.load(text, name)[0]


def rows(table: int) -> tuple[str, ...]:
    return tuple(paper()[f"table{table}"]["rows"])


def controls(table: int) -> tuple[str, ...]:
    """Return the models beside a table's that the paper does not have: those that the comparisons of controls name."""
    named = {entry[side] for entry in paper()["controls"] if entry["table"] == table for side in ("better", "worse")}
    return tuple(model for model in CONTROLS if model in named)


def columns(table: int) -> tuple[str, ...]:
    return tuple(paper()[f"table{table}"]["columns"])


def kinds(table: int) -> tuple[str, ...]:
    """Return the names of the numbers in a cell: blended ones first in Table 1, one without a name in Tables 2 and 3."""
    return tuple(f"{m}{suffix}" for suffix in ("_blended", "") for m in METRICS) if table == 1 else ("",)


def parts(reading: Reading) -> dict[str, str]:
    """Return what each column of Table 1 hides, in words."""
    return {column: place["part"] for column, place in paper()["readings"][reading].items()}


def columns_note(reading: Reading) -> str:
    """Return what the columns of Table 1 are measured on, and why."""
    named = ", ".join(f"{column} {part}" for column, part in parts(reading).items())
    why = {
        "numbers": "by the paper's words O1 is the left eye and O4 the left face, but its numbers have 2.4 times as much squared "
        "error at O1 as at O4 (docs/paper.md)",
        "words": "as the paper's words say; its numbers fit another order (--columns numbers, docs/paper.md)",
    }[reading]
    return f"Columns: {named}; {why}."


def printed(table: int, model: str, column: str, kind: str = "") -> float:
    """Return the paper's number."""
    values = paper()[f"table{table}"]["rows"][model]
    if table == 1:
        # The paper does not say whether its Table 1 is blended, so its numbers are compared with both of ours.
        values = values[kind.removesuffix("_blended")]
    return float(values[columns(table).index(column)])


def score(table: int, column: str, kind: str, reading: Reading) -> Score:
    """Return where our number of a cell comes from."""
    if table == 1:
        metric, position = kind.removesuffix("_blended"), paper()["readings"][reading][column]["position"]
        return Score(metric, None, position, kind.endswith("_blended"), 100.0 if metric == "ssim" else 1.0, True)
    # Evaluations call the paper's "average" column "mean".
    part = "mean" if column == "average" else column
    if table == 2:
        return Score("dice", part, "block", False, 100.0, True)
    return Score("landmark_error", part, "block", False, 1.0, False)
