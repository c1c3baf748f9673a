"""`collagan serve`: a page on which a person tries trained models."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist.commands.arguments import port_number

HELP = "a page on this machine on which one tries trained models: choose a picture, paint a hole, see it completed"
EXAMPLE = """collagan serve runs/demo
         collagan serve runs/first models/exported --port 0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help="run folder or exported folder; several are shown beside one another"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="name or address to listen on (default: %(default)s, this machine alone); one that other machines reach asks "
        "visitors for a token, which the printed address has",
    )
    parser.add_argument(
        "--port", type=port_number, default=8765, metavar="N", help="port; 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--token", action="store_true", help="ask for a token on this machine too, as where other users work on it"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="change a key, as evaluate.search.steps=200 (SII)"
    )


def run(args: argparse.Namespace) -> None:
    # Imports torch: after the arguments are checked.
    from collagan_dist.serve.server import serve

    serve([Path(model) for model in args.models], args.host, args.port, args.token, args.set)
