"""A reproduction small enough for tests: narrow models at 32x32, of 300 steps before --scale."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = """
model: {widths: {generator: 4, discriminator: 4}}
data: {image_size: 32, threads: 1}
schedule: {steps: 300, batch: 4, adv_from: 100}
runtime: {threads: 1}
checkpoint: {every: 100, keep: 2}
log: {every: 100, grid_every: 1000}
evaluate: {baselines: 0}
"""

# The command with a Table 3 of two models: what trains and scores them is the real thing.
_TWO_MODELS = """
from collagan_dist.commands.main import main
from collagan_dist.reproduce.paper import paper
rows = paper()["table3"]["rows"]
gone = {"M_isd": rows.pop("M_isd"), "M*_isd": rows.pop("M*_isd")}
paper()["claims"] = [c for c in paper()["claims"] if c["table"] != 3 or not gone.keys() & {c["better"], c["worse"]}]
main()
"""


def write_small(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return path


def words(config: Path, shards: Path, out: Path, *more: object) -> list[str]:
    return ["reproduce", str(config), "--data", str(shards), "--out", str(out), "--scale", "0.01", *map(str, more)]


TABLE_3 = ("--tables", "3", "--figures", "")


def start(*arguments: str, two_models: bool = True) -> subprocess.Popen:
    """`collagan reproduce`, in a session of its own like a shell's job."""
    how = ["-c", _TWO_MODELS] if two_models else ["-m", "collagan_dist"]
    return subprocess.Popen(
        [sys.executable, *how, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process: subprocess.Popen, code: int = 0) -> tuple[str, str]:
    """(stdout, stderr) of a process that ends with `code`."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, out + err
    return out, err


def content(out: Path) -> dict[str, Any]:
    return {path.name: json.loads(path.read_bytes()) for path in sorted(out.glob("*.json"))}


def events(run: Path) -> list[str]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["event"] for line in lines if line["kind"] == "event"]
