"""`collagan verify`: check shards against their manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "check shards against their manifest; damaged indexes are rebuilt"
EXAMPLE = "collagan verify packed/celeba --deep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "shards", metavar="SHARDS", help="folder made by `collagan pack` or `collagan adopt`, or its URL"
    )
    parser.add_argument(
        "--deep", action="store_true", help="hash every file, read every sample through webdataset and decode it"
    )
    parser.add_argument("--no-repair", action="store_true", help="a damaged index is an error, and nothing is written")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import progress
    from collagan_dist.data.shards.verify import verify

    with progress("verifying", "shards") as advance:
        manifest = verify(args.shards, args.deep, advance, repair=not args.no_repair)
    samples = ", ".join(f"{manifest.samples(split)} {split}" for split in manifest.splits)
    # Without --deep, remote shards are not read at all.
    quick = f"{'sizes and indexes' if isinstance(manifest.folder, Path) else 'sizes'}; --deep checks every byte"
    checked = "every file's hash and every sample" if args.deep else quick
    print(f"{args.shards}: undamaged ({samples} samples; checked {checked})")
    if manifest.elsewhere is not None:  # a manifest from others may name any place
        print(f"its tars are read from {manifest.elsewhere}")
