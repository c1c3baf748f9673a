"""`make bench`: the quick benchmarks, and a table of their main figures against the stored results.

A figure that is worse than the stored one by more than its noise is marked. Ratios and counts are compared on any machine, CPU-seconds
only on the one that they were stored from. Every script writes its result again; `git diff benchmarks` shows all of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Figure:
    """A number of a result by its path; `noise` is the share by which it moves between runs of one machine."""

    script: str
    path: tuple[str, ...]
    noise: float = 0.1
    lower_is_better: bool = False
    any_machine: bool = True


FIGURES = (
    Figure("step", ("ratio_to_plain",), any_machine=False),
    Figure("loader", ("batches_ratio",)),
    Figure("loader", ("decoding_ratio",)),
    Figure("loader", ("feeding_microseconds_a_sample",), 0.25, True, False),
    Figure("geometry", ("ratio OpenCV / DALI",)),
    Figure("packing", ("ratio to decode",)),
    Figure("evaluation", ("ratio",), 0.2),
    Figure("start", ("cpu_seconds", "first line"), 0.2, True, False),
    Figure("start", ("cpu_seconds", "first two steps"), 0.2, True, False),
    Figure("virtual", ("eager, batch 256", "operations"), 0.0, True),
    Figure("virtual", ("eager, batch 256", "gigabytes"), 0.0, True),
    Figure("virtual", ("compile: step, batch 256", "operations outside graphs"), 0.0, True),
    Figure("virtual", ("compile: step, batch 256", "gigabytes"), 0.0, True),
)


def main() -> None:
    table = Table("benchmark", "figure", "stored", "now", "")
    worse = 0
    for script in dict.fromkeys(figure.script for figure in FIGURES):
        print(f"{script} ...", file=sys.stderr, flush=True)
        before = _read(script)
        subprocess.run([sys.executable, "-m", f"benchmarks.{script}"], check=True, stdout=subprocess.DEVNULL)
        now = _read(script)
        for figure in FIGURES:
            if figure.script == script:
                remark = compare(figure, before, now)
                worse += remark.startswith("worse")
                stored = _value(figure, before)
                table.add_row(
                    script,
                    ", ".join(figure.path),
                    "–" if stored is None else f"{stored:g}",
                    f"{_value(figure, now):g}",
                    remark,
                )
    console = Console(width=120 if not sys.stdout.isatty() else None)
    console.print(table)
    console.print(
        f"{now['cpu']}, commit {now['commit']}, load {os.getloadavg()[0]:.1f}; {worse} figure(s) worse than stored",
        highlight=False,
    )


def compare(figure: Figure, before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return what is to be said of a figure: nothing, that it is worse, or why it is not compared."""
    old, new = _value(figure, before), _value(figure, now)
    if old is None or new is None:
        return "new"
    if not figure.any_machine and before.get("cpu") != now.get("cpu"):
        return f"stored on {before.get('cpu')}"
    change = new / old if figure.lower_is_better else old / new
    return f"worse by {change - 1:.0%}" if change > 1 + figure.noise else ""


def _read(script: str) -> dict[str, Any]:
    path = HERE / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _value(figure: Figure, result: dict[str, Any]) -> float | None:
    value: Any = result
    for key in figure.path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


if __name__ == "__main__":
    main()
