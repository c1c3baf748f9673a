"""The table docs/engines.md: trains in all ways, compares, and writes what came out.

python -m tests.distributed.matrix            runs all cases; some minutes
python -m tests.distributed.matrix render     writes the table anew from matrix.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks import where
from collagan_dist.data.packing.pack import pack
from collagan_dist.faces.layout import draw_faces
from tests.conftest import ROOT, small_recipe
from tests.distributed.cases import ALL, ENGINES, ROWS, STEPS, WITHIN, Case, with_references

FOUND = Path(__file__).with_suffix(".json")
PAGE = ROOT / "docs/engines.md"
HEADS = {"ddp": "DDP", **{f"deepspeed-{stage}": f"DeepSpeed, ZeRO {stage}" for stage in (0, 1, 2)}}


def run_cases(
    cases: Iterable[Case],
    shards: Path,
    out: Path,
    together: Sequence[str] = (),
    alone: Sequence[str] = (),
    steps: int = STEPS,
) -> str:
    """Train in all these ways: one start on two ranks, one alone for what runs on one; compilers write nowhere else than in `out`.

    `together` and `alone` are scenarios for these starts. Returns what they printed.
    """
    out.mkdir(exist_ok=True)
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": str(out / "extensions"),
    }
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    printed = ""
    for ranks, start, scenarios in ((2, torchrun, together), (1, [], alone)):
        names = [case.name for case in cases if case.ranks == ranks]
        arguments = ["tests.distributed.case_ranks", *map(str, (shards, out, steps)), *names, *scenarios]
        command = [sys.executable, "-m", *start, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stdout + done.stderr
        printed += done.stdout + done.stderr
    return printed


def losses(out: Path, case: Case) -> list[dict[str, float]]:
    return json.loads((out / f"{case.name}-{case.ranks}.json").read_text())


def difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The largest relative difference of a loss in any step; shares of patches and norms are not losses."""
    assert [sorted(step) for step in one] == [sorted(step) for step in other], "other steps were skipped"
    pairs = [(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a if n.startswith("loss/")]
    assert len(pairs) > len(one)  # some steps were taken
    return max(abs(a - b) / abs(a) for a, b in pairs)


def compare(out: Path, case: Case) -> dict[str, Any]:
    """What a case came to beside its reference: the largest relative difference of a loss in any step, whether all is equal bit by bit."""
    reference = case.reference
    if reference is None:
        return {"runs": True}
    loss = difference(losses(out, reference), losses(out, case))
    tensors = [load_file(out / f"{c.name}.safetensors") for c in (reference, case)]
    assert tensors[0].keys() == tensors[1].keys()
    same = all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    return {"reference": reference.name, "loss": loss, "bitwise": same}


def render(page: str, found: dict[str, Any]) -> str:
    """The page with the table of what was found of each case."""
    lines = [["precision", "accumulate", "SyncBN", "compile", *HEADS.values()]]
    lines.append(["---"] * len(lines[0]))
    for row in ROWS:
        precision, accumulate, *switches = row
        cells = [cell(found["cases"][Case(engine, *row).name]) for engine in ENGINES]
        lines.append([precision, str(accumulate), *("yes" if switch else "no" for switch in switches), *cells])
    before, _, rest = page.partition("| precision")
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return before + table + rest[rest.index("\n\n") :]


def cell(result: dict[str, Any]) -> str:
    if "reference" not in result:
        return "runs"
    name = {"plain": "one rank", "ddp": "DDP"}[result["reference"].split("_")[0]]
    if result["loss"]:
        return f"{name}, {result['loss']:.0e}"
    return f"{name}, bit by bit" if result["bitwise"] else f"{name}, losses bit by bit"


ZERO = 1e-5  # of a loss within the steps, DeepSpeed against DDP


def within(case: Case) -> float:
    """How far a loss may be from the reference's."""
    if case.engine != "ddp":
        return ZERO
    return WITHIN["compile" if case.compile else case.precision]


def main(mode: str = "run") -> None:
    if mode == "run":
        with tempfile.TemporaryDirectory() as folder:
            faces, shards, out = (Path(folder, name) for name in ("faces", "shards", "out"))
            draw_faces(faces, count=60, seed=3, workers=1)
            pack(small_recipe(faces, shards), workers=1)
            run_cases(with_references(ALL), shards, out)
            found = {
                "command": "python -m tests.distributed.matrix",
                **where(),
                "cases": {c.name: compare(out, c) for c in ALL},
            }
        FOUND.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(render(PAGE.read_text(), json.loads(FOUND.read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
