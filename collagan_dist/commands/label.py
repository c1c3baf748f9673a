"""`collagan label`: label maps for photographs, or their agreement with existing maps."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist import shell
from collagan_dist.commands.arguments import add_max_bad, positive_int

if TYPE_CHECKING:
    from collagan_dist.inference.label_check import Agreement
    from collagan_dist.inference.labelling import LabelResult, PhotoSet

HELP = "label maps for photographs in CelebA's layout, by a parsing network; the same command continues"
EXAMPLE = """collagan label /data/CelebA --model runs/parser
         collagan label /data/CelebA --model face-parsing.onnx --classes face-parsing.yaml"""

_MAX_NAMED = 5  # unusable pictures that are named on the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", metavar="ROOT", help="folder in CelebA's layout: Img, Anno, Eval")
    parser.add_argument(
        "--model",
        metavar="M",
        required=True,
        help="run folder or exported folder of a model that segments, or an ONNX file",
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the maps (default: ROOT/Label/<folder of pictures>)")
    parser.add_argument(
        "--classes",
        metavar="YAML",
        help="class map of an ONNX file, see docs/label.md (default: its name with .yaml)",
    )
    parser.add_argument(
        "--dataset",
        choices=("celeba", "celeba_aligned"),
        help="pictures in the wild or aligned (default: what is there, in the wild first)",
    )
    parser.add_argument(
        "--batch", type=positive_int, default=16, metavar="N", help="pictures at a time (default: %(default)s)"
    )
    add_max_bad(parser)
    parser.add_argument(
        "--check", action="store_true", help="write nothing: compare with the maps that DIR holds (Dice a class)"
    )


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import busy, progress

    with busy("loading the model"):
        from collagan_dist.inference.label_check import check_label_maps
        from collagan_dist.inference.labelling import find_photographs, write_label_maps
        from collagan_dist.inference.parsers import open_parser

        photos = find_photographs(Path(args.root), args.dataset, Path(args.out) if args.out else None)
        # Opened before anything is written: a model that does not segment is an error at once.
        parser = open_parser(Path(args.model), Path(args.classes) if args.classes else None)
    with progress("comparing" if args.check else "labelling", "pictures") as advance:
        if args.check:
            agreement = check_label_maps(parser, photos, args.batch, advance)
        else:
            done = write_label_maps(parser, photos, args.batch, advance, args.max_bad)
    if args.check:
        _print_agreement(agreement, photos)
    else:
        _print_result(done, photos, Path(args.root))


def _print_result(done: LabelResult, photos: PhotoSet, root: Path) -> None:
    from collagan_dist.inference.labelling import UNLABELLED_FILE

    for key, reason in done.unusable[:_MAX_NAMED]:
        print(f"no label map for {key}: {reason}")
    # The rest is in the file: a damaged folder may have thousands.
    if done.unusable:
        print(
            f"{len(done.unusable)} unusable pictures have no label map, see {photos.maps / UNLABELLED_FILE}; `collagan pack` leaves them out too"
        )
    kept = f" ({done.existing} were there)" if done.existing else ""
    maps = photos.maps.resolve()
    # Both data sets have a recipe of their name. Its `labels` is relative to the data set, unless the maps were written elsewhere.
    labels = maps.relative_to(root.resolve()) if maps.is_relative_to(root.resolve()) else maps
    print(
        f"{photos.maps}: {done.written + done.existing} label maps{kept}; "
        f"next: {shell.collagan('pack', photos.dataset, '--root', root, '--set', f'labels={labels}')}"
    )
    print(f"{done.written + done.existing} completed, {len(done.unusable)} left out")


def _print_agreement(agreement: Agreement, photos: PhotoSet) -> None:
    from collagan_dist.commands.tables import console, new_table
    from collagan_dist.types import CLASSES

    columns = ("class", "Dice", "±", "pixels there", "found")
    table = new_table(f"{agreement.pictures} pictures against {photos.maps}", columns, left=("class",))
    numbers = ((agreement.dice, ".3f"), (agreement.errors, ".3f"), (agreement.true, ".2%"), (agreement.found, ".2%"))
    # The mean of Table 2's classes: background and hair are not among them.
    mean = {"mean": "mean of face to lower_lip"} if agreement.dice.get("mean") is not None else {}
    for key, label in {**{name: name for name in CLASSES}, **mean}.items():
        cells = ((values.get(key), form) for values, form in numbers)
        table.add_row(label, *("" if value is None else format(value, form) for value, form in cells))
    console().print(table)
    if agreement.without_map or agreement.unusable:
        print(f"{agreement.without_map} pictures without a map and {agreement.unusable} unusable ones were left out")
