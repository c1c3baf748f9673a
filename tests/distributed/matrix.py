"""The table docs/engines.md: trains in all ways, compares, and writes what came out.

python -m tests.distributed.matrix            runs all cases; some minutes
python -m tests.distributed.matrix render     writes the table anew from matrix.json
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
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


def run_cases(cases: Iterable[Case], shards: Path, out: Path, *scenarios: str, steps: int = STEPS) -> None:
    """Train in all these ways: one start on two ranks, one alone for what runs on one; compilers write nowhere else than in `out`."""
    out.mkdir(exist_ok=True)
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TORCH_EXTENSIONS_DIR": str(out / "extensions"),
    }
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--"]
    together = [case.name for case in cases if case.engine != "plain"]
    alone = [case.name for case in cases if case.engine == "plain"]
    for start, names in ((torchrun, [*together, *scenarios]), ([], [*alone, *scenarios])):
        command = [
            sys.executable,
            "-m",
            *start,
            "tests.distributed.case_ranks",
            *map(str, (shards, out, steps)),
            *names,
        ]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=3000)
        assert done.returncode == 0, done.stdout + done.stderr
        (out / ("alone.log" if not start else "together.log")).write_text(done.stdout + done.stderr)


def compare(out: Path, case: Case) -> dict[str, Any]:
    """What a case came to beside its reference: the largest relative difference of a loss in any step, whether all is equal bit by bit."""
    reference = case.reference
    if reference is None:
        return {"runs": True}
    one, other = (json.loads((out / f"{c.name}.json").read_text()) for c in (reference, case))
    assert [sorted(step) for step in one] == [sorted(step) for step in other], "other steps were skipped"
    pairs = [(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a if n.startswith("loss/")]
    assert len(pairs) > len(one)  # some steps were taken
    loss = max(abs(a - b) / abs(a) for a, b in pairs)
    tensors = [load_file(out / f"{c.name}.safetensors") for c in (reference, case)]
    assert tensors[0].keys() == tensors[1].keys()
    same = all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    return {"reference": reference.name, "loss": loss, "bitwise": same}


def render(found: dict[str, Any]) -> str:
    """The page, from what was found of each case."""
    rows = []
    for row in ROWS:
        precision, accumulate, sync_bn, compiled = row
        cells = [cell(found["cases"][Case(engine, *row).name]) for engine in ENGINES]
        rows.append([precision, str(accumulate), "yes" if sync_bn else "no", "yes" if compiled else "no", *cells])
    heads = ["precision", "accumulate", "SyncBN", "compile", *HEADS.values()]
    lines = [heads, ["---"] * len(heads), *rows]
    return _PAGE.format(
        table="\n".join(f"| {' | '.join(line)} |" for line in lines), steps=STEPS, cpu=found["cpu"], **_TOLERANCES
    )


def cell(result: dict[str, Any]) -> str:
    if "reference" not in result:
        return "runs"
    reference = result["reference"].split("_")[0]
    name = {"plain": "one rank", "ddp": "DDP"}[reference]
    return (
        f"{name}, bit by bit"
        if result["bitwise"]
        else f"{name}, {result['loss']:.0e}"
        if result["loss"]
        else f"{name}, losses bit by bit"
    )


ZERO = 1e-5  # of a loss within the steps, DeepSpeed against DDP
_TOLERANCES = {precision: f"{value:g}" for precision, value in WITHIN.items()} | {"zero": f"{ZERO:g}"}
_PAGE = """# Engines

This table says how each engine, precision and accumulation trains, and which other way gives the same result.
`python -m tests.distributed.matrix` writes the page: it trains in each of these ways for {steps} steps on two ranks
({cpu}). It compares every loss of every step and, at the end, the networks, Adam's state and the running statistics.
A cell names what it was compared with, and the largest relative difference of a loss. Each run of the tests repeats a
part of the table, `make test-full` all of it.

{table}

- *one rank*: the same global batch in one process, with the plain engine. With SyncBN, batch statistics are those of all
  ranks. Without it, each rank and micro-batch has its own, and the one rank takes the batch in as many micro-batches.
- *runs*: there is nothing to compare with. With SyncBN a micro-batch spans both ranks, and no single rank has such a one;
  with SyncBN in fp16 other steps may overflow.
- *DDP*: the same case under DDP; compiled DDP is compared with DDP that is not compiled. ZeRO 0 does the same arithmetic in
  the same order. ZeRO 1 and 2 keep the parameters as one flat tensor, whose vector instructions round other elements.
- Limits in the tests: DDP against one rank {fp32} in fp32 (1e-9 in float64: `tests/distributed/test_ddp.py`), {bf16} in
  bf16, {fp16} in fp16; compiled DDP {compile}; DeepSpeed against DDP {zero} everywhere. ZeRO 0 is equal bit by bit.
- bf16 and fp16 are autocast under all engines, and gradients are reduced in float32. All engines use the same loss scale for
  fp16, so they skip the same steps while it finds its size.

These settings are refused:

| setting | reason |
| --- | --- |
| `runtime.engine=plain` on several ranks | it trains on one rank only |
| `runtime.zero_stage=3` | it shards the parameters; each update of a GAN step runs the other network as a plain module |
| `runtime.zero_stage=1` or `2` without DeepSpeed | only DeepSpeed has it |
| `runtime.engine=deepspeed` if it is not installed | `pip install 'collagan_dist[deepspeed]'` |

`tests/distributed/test_deepspeed.py` also holds, for every stage, on one rank and on two:

- A NaN on one rank skips the step on all ranks and leaves no trace.
- A resumed run ends like an uninterrupted one, bit by bit.
- A checkpoint of any engine, stage and number of ranks is continued by any other.
- GFC trains with its two learners of discriminators, and images may be channels_last. (DeepSpeed keeps the parameters
  contiguous, since it flattens them.)
- Nothing is compiled and nothing is printed.
"""


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
    PAGE.write_text(render(json.loads(FOUND.read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
