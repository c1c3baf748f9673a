"""`collagan draw`: procedural faces as a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist import shell
from collagan_dist.commands.arguments import fraction, worker_count

HELP = "draw procedural faces with exact landmarks and label maps, in CelebA's layout"
EXAMPLE = "collagan draw faces --count 2000 --seed 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder to write")
    parser.add_argument("--count", type=int, default=1000, help="faces, split 80 / 10 / 10 (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds draw other faces (default: %(default)s)")
    coupling_help = (
        "how far parts determine one another: 1, both eyes and brows alike, brows as the hair, one light on all; 0, each part on its own "
        "(default: %(default)s)"
    )
    parser.add_argument("--coupling", type=fraction, default=1.0, metavar="F", help=coupling_help)
    parser.add_argument("--workers", type=worker_count, default=0, help="processes; 0: one a core (default)")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import progress
    from collagan_dist.faces.layout import draw_faces

    # Faces are independent of the number of processes: each is a function of the seed and its number.
    with progress("drawing", "faces") as advance:
        draw_faces(
            Path(args.out), args.count, args.seed, args.workers, lambda done: advance(done, args.count), args.coupling
        )
    print(
        f"{args.out}: {args.count} faces of seed {args.seed}; next: {shell.collagan('pack', 'drawn', '--root', args.out)}"
    )
