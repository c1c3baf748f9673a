"""`collagan init`: the project's recipes, search spaces, machine files and batch scripts as files to be changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist import shell

HELP = "write recipes, search spaces, batch scripts and the container recipe into a folder, to be changed"
EXAMPLE = "collagan init faces-project"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="folder to write; files that are there are never changed"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.config.project_files import copy_project

    folder: Path = args.folder
    written, there = copy_project(folder)
    for path in written:
        print(path)
    print(f"{folder}: {len(written)} files written, {len(there)} were there already")
    print("next: change what you need, each folder's README.md describes it; then, for example")
    print(f"  {shell.collagan('pack', folder / 'shards/folder.yaml', '--root', 'PICTURES', '--out', 'SHARDS')}")
    print(
        f"  {shell.collagan('sweep', 'stable', '--space', folder / 'cluster/sweep.yaml', '--data', 'SHARDS', '--out', 'SWEEP')}"
    )
    print(f"  {shell.join('sbatch', folder / 'slurm/train.sh', 'stable', '--data', 'SHARDS', '--out', 'RUN')}")
