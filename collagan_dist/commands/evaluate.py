"""`collagan evaluate`: the metrics of a trained model on a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from collagan_dist.commands.arguments import model_folder
from collagan_dist.types import EvaluationHole

HELP = "evaluate a trained model on a split, beside trivial baselines; over all ranks"
EXAMPLE = "collagan evaluate runs/demo --split test --hole O1,O2 --blend both"

# One forward pass serves both kinds of blending.
_BLENDS = {"none": ("none",), "poisson": ("poisson",), "both": ("none", "poisson")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, URL of its copies, or exported folder")
    parser.add_argument("--data", metavar="SHARDS", help="other shards than the run's own")
    parser.add_argument("--out", metavar="DIR", help="folder of the results (default: MODEL/evaluation)")
    parser.add_argument("--split", default="test", help="train, valid or test (default: %(default)s)")
    parser.add_argument(
        "--hole",
        type=_holes,
        default=(),
        metavar="KIND[,KIND...]",
        help=f"kinds of holes: {', '.join(get_args(EvaluationHole))} (default: that of training)",
    )
    parser.add_argument(
        "--blend", choices=_BLENDS, default="none", help="Poisson blending of completions (default: %(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="change a key, as evaluate.readout=argmax"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import busy, progress
    from collagan_dist.distributed.world import detect_world

    world = detect_world()
    with busy("loading torch", world.is_rank0):
        from collagan_dist.inference.score import ScoreRequest, score
    out = Path(args.out) if args.out else None
    request = ScoreRequest(args.split, args.hole, _BLENDS[args.blend], out)
    with progress("evaluating", "samples") if world.is_rank0 else busy("evaluating", shown=False) as advance:
        results = score(model_folder(args.model), world, request, args.data, args.set, advance)
    if world.is_rank0:
        from collagan_dist.commands.tables import metrics_table

        # The path last: scripts take the last line.
        for metrics, path in results:
            metrics_table(metrics)
            print(path)


def _holes(text: str) -> tuple[str, ...]:
    # A kind named twice is evaluated once.
    kinds = tuple(dict.fromkeys(text.split(",")))
    for kind in kinds:
        if kind not in get_args(EvaluationHole):
            raise argparse.ArgumentTypeError(
                f"{kind!r} is not a kind of hole; choose from {', '.join(get_args(EvaluationHole))}"
            )
    return kinds
