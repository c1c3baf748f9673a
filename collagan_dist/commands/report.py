"""`collagan report`: one HTML page for runs, a sweep or a reproduction."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist.commands.arguments import model_folder

HELP = "one self-contained report.html for runs: curves, pictures, metrics, configuration"
EXAMPLE = "collagan report runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="run folders, several are compared; or the folder of a reproduction or of a sweep",
    )
    parser.add_argument("--out", help="file to write (default: report.html in the run folder, or beside several)")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import busy

    with busy("writing the page"):
        from collagan_dist.report.page import write_report

        page = write_report([model_folder(p) for p in args.paths], Path(args.out) if args.out else None)
    # The path alone, so that scripts can open it.
    print(page)
