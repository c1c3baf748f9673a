"""What the paper prints (paper.yaml), and what its tables are made of: which models, which holes, which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from collagan_dist.config import strict_yaml

TABLES: Final = (1, 2, 3)
METRICS: Final = ("ssim", "psnr")  # of Table 1, in the order of its cells
# Models of which --seeds learns several: the ones whose differences carry the paper's argument.
SEEDED: Final = ("M_i", "M_isd", "M*_isd")


@dataclass(frozen=True)
class Score:
    """A number of a table's cell. `key` is that of an evaluation's JSON, `part` the class or point in it, or None.

    `factor` turns the JSON's unit into the table's: 100 for percent.
    """

    key: str
    part: str | None
    hole: str
    blended: bool
    factor: float
    higher_is_better: bool


@cache
def paper() -> dict[str, Any]:
    name = "paper.yaml"
    text = resources.files("collagan_dist.reproduce").joinpath(name).read_text()
    return strict_yaml.load(text, name)[0]


def rows(table: int) -> tuple[str, ...]:
    return tuple(paper()[f"table{table}"]["rows"])


def columns(table: int) -> tuple[str, ...]:
    return tuple(paper()[f"table{table}"]["columns"])


def kinds(table: int) -> tuple[str, ...]:
    """Names of the numbers in a cell of Table 1, blended ones first; Tables 2 and 3 have one, without a name."""
    return tuple(f"{m}{suffix}" for suffix in ("_blended", "") for m in METRICS) if table == 1 else ("",)


def printed(table: int, model: str, column: str, kind: str = "") -> float:
    """The paper's number. It has one Table 1: whether that is blended is not said, so it stands beside both of ours."""
    values = paper()[f"table{table}"]["rows"][model]
    if table == 1:
        values = values[kind.removesuffix("_blended")]
    return float(values[columns(table).index(column)])


def score(table: int, column: str, kind: str = "") -> Score:
    """Where our number of a cell comes from."""
    if table == 1:
        metric = kind.removesuffix("_blended")
        return Score(metric, None, column, kind.endswith("_blended"), 100.0 if metric == "ssim" else 1.0, True)
    part = "mean" if column == "average" else column
    if table == 2:
        return Score("dice", part, "block", False, 100.0, True)
    return Score("landmark_error", part, "block", False, 1.0, False)
