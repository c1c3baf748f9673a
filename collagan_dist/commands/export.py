"""`collagan export`: a trained model in a folder of its own."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist.commands.arguments import model_folder

HELP = "a trained model as a folder of its own with a model card, for evaluate, complete and label; also as ONNX or torch program"
EXAMPLE = "collagan export runs/parser --out models/parser --onnx"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="RUN", help="run folder or URL of its copies; its newest checkpoint is taken")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--onnx", action="store_true", help="also model.onnx, and a class map for `collagan label` where it segments"
    )
    parser.add_argument("--torch", action="store_true", help="also model.pt2, a program of torch.export")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import busy

    with busy("exporting and comparing with torch" if args.onnx or args.torch else "exporting"):
        from collagan_dist.inference.export import export

        manifest = export(model_folder(args.model), Path(args.out), args.onnx, args.torch)
    for name, found in manifest["compared"].items():
        print(f"{name}: differs from torch by at most {found['difference']:.1e} in {found['by']}")
    print(f"{args.out}: {manifest['model']} of step {manifest['step']}: {', '.join(manifest['sha256'])}")
