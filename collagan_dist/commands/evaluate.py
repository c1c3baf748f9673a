"""collagan evaluate"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from collagan_dist.contract import TestHole

HELP = "score a trained model on a split, beside trivial baselines; over all ranks"
EXAMPLE = "collagan evaluate runs/demo --split test"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder or exported folder")
    parser.add_argument("--data", metavar="SHARDS", help="other shards than the run's own")
    parser.add_argument("--split", default="test", help="train, valid or test (default: %(default)s)")
    parser.add_argument(
        "--hole",
        choices=get_args(TestHole),
        help="kind of holes; O1 to O6 are Table 1's positions (default: those of training)",
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.runtime.world import detect
    from collagan_dist.training.score import score

    world = detect()
    metrics, path = score(Path(args.model), world, args.data, args.split, args.hole)
    if world.is_main:
        from collagan_dist.commands.tables import metrics_table

        metrics_table(metrics)
        print(path)
