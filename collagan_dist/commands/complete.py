"""`collagan complete`: fill the holes of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "complete a picture or a folder of pictures with a trained model"
EXAMPLE = "collagan complete runs/demo photo.jpg --out completed --hole block"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder or exported folder")
    parser.add_argument(
        "input", metavar="INPUT", help="a picture or a folder of pictures; what is not square is centre-cropped"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    parser.add_argument(
        "--hole",
        metavar="PNG|KIND",
        help="a PNG (white = hole), or block, pattern, noise, none, O1 to O6 at their fixed positions "
        "(default: block; none for a model that completes nothing)",
    )
    parser.add_argument(
        "--blend", choices=("none", "poisson"), default="none", help="Poisson blending (default: %(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="change a key, as evaluate.search.steps=200 (SII)"
    )


def run(args: argparse.Namespace) -> None:
    # Imports torch: after the arguments are checked.
    from collagan_dist.inference.complete import complete

    results = complete(Path(args.model), Path(args.input), Path(args.out), args.hole, args.blend, args.set)
    print(f"{args.out}: {len(results)} picture(s) completed; see {results[0]}")
