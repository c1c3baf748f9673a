"""A reproduction small enough for tests: narrow models at 32x32, of 300 steps before --scale."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from collagan_dist.reproduce import paper
from tests.conftest import ROOT

SMALL = """
model: {widths: {generator: 4, discriminator: 4}}
data: {image_size: 32, threads: 1}
schedule: {steps: 300, batch: 4, adv_from: 100}
runtime: {threads: 1}
checkpoint: {every: 100, keep: 2}
log: {every: 100, grid_every: 1000}
evaluate: {baselines: 0}
"""

_TWO_MODELS = "import pytest; from tests.reproduce.small import two_models; two_models(pytest.MonkeyPatch()); "


def two_models(patch: pytest.MonkeyPatch) -> None:
    """Leave two models in Table 3; what trains and scores them is the real thing."""
    rows = paper.paper()["table3"]["rows"]
    patch.setitem(paper.paper()["table3"], "rows", {name: rows[name] for name in ("M_d", "M_id")})
    claims = [c for c in paper.paper()["claims"] if c["table"] != 3 or {c["better"], c["worse"]} == {"M_d", "M_id"}]
    patch.setitem(paper.paper(), "claims", claims)
    patch.setitem(paper.paper(), "controls", [])


def write_small(folder: Path) -> Path:
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return path


def words(config, shards, out, *more) -> list[str]:
    return ["reproduce", str(config), "--data", str(shards), "--out", str(out), "--scale", "0.01", *map(str, more)]


TABLE_3 = ("--tables", "3", "--figures", "")


def start(*arguments: str) -> subprocess.Popen:
    """`collagan reproduce` of two models, in a session of its own like a shell's job."""
    code = f"{_TWO_MODELS}from collagan_dist.commands.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
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
