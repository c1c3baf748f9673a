"""`collagan export`: a trained model in a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a trained model as a folder of its own, for evaluate, complete and label; also as an ONNX file"
EXAMPLE = "collagan export runs/parser --out models/parser --onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="run folder; its newest checkpoint is taken")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--onnx", action="store_true", help="also model.onnx, and a class map for `collagan label` where it segments"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.inference.export import export

    # An ONNX file is compared with the network, number by number, before it is written to the manifest.
    manifest = export(Path(args.model), Path(args.out), args.onnx)
    print(f"{args.out}: {manifest['model']} of step {manifest['step']}: {', '.join(manifest['sha256'])}")
