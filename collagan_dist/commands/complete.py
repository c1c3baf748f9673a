"""`collagan complete`: fill the holes of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from collagan_dist.commands.arguments import add_max_bad, model_folder, square

HELP = "complete a picture or a folder of pictures with a trained model"
EXAMPLE = "collagan complete runs/demo photo.jpg --out completed --hole block"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="run folder, URL of its copies, or exported folder")
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a photograph, or a folder whose photographs, also in folders below, are completed",
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the results")
    parser.add_argument(
        "--hole",
        metavar="PNG|FOLDER|alpha|KIND",
        help="a PNG (white = hole), a folder with NAME.png or NAME_mask.png for each picture NAME, alpha (what is transparent), "
        "or, in the face square, block, pattern, noise, none, O1 to O6 (around given landmarks, else at fixed positions) "
        "(default: block; none for a model that completes nothing)",
    )
    parser.add_argument(
        "--square",
        type=square,
        action="append",
        default=[],
        metavar="X,Y,SIDE",
        help="a face square of every picture: left, top and side in pixels, as a viewer shows it; once for each face "
        "(default: all that the detector sees, else by the model's own landmarks, else around the hole; it grows to contain a "
        "given hole)",
    )
    parser.add_argument(
        "--landmarks",
        metavar="FILE",
        help="landmarks that say where faces are: NAME.landmarks.json, JSON by names of pictures, or a list like CelebA's",
    )
    parser.add_argument(
        "--blend",
        choices=("none", "poisson"),
        default="none",
        help="Poisson blending, at the model's size and then at the picture's (default: %(default)s)",
    )
    add_max_bad(parser)
    parser.add_argument(
        "--set", action="append", default=[], metavar="a.b=c", help="change a key, as evaluate.search.steps=200 (SII)"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import busy, progress

    with busy("loading torch"):
        from collagan_dist.data.readers.landmark_file import read_landmark_file
        from collagan_dist.inference.complete import CompleteOptions, complete
        from collagan_dist.inference.face_location import GivenFaces

    source, out = Path(args.input), Path(args.out)
    picture = None if source.is_dir() else source.stem
    landmarks = read_landmark_file(Path(args.landmarks), picture) if args.landmarks else None
    given = GivenFaces(args.square, landmarks)
    options = CompleteOptions(args.blend, args.set, args.max_bad, given)
    # A bar of one picture would say nothing.
    with progress("completing", "pictures") if source.is_dir() else busy("completing") as advance:
        result = complete(model_folder(args.model), source, out, args.hole, options, advance)
    print(f"see {result.sheets[0]}")
    print(f"{len(result.sheets)} completed, {len(result.left_out)} left out")
