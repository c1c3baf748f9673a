"""collagan pack"""

from __future__ import annotations

import argparse

from collagan_dist.commands.progress import workers

HELP = "convert a data set into shards; the same command continues an interrupted one"
EXAMPLE = "collagan pack shards/celeba.yaml --root /data/CelebA --out packed/celeba"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="YAML of shards/: reader, labels, size, splits")
    parser.add_argument("--root", help="folder of the data set, instead of the recipe's")
    parser.add_argument("--out", help="folder of the shards, instead of the recipe's")
    parser.add_argument(
        "--workers", type=workers, default=0, help="processes; 0: one a core (default). The bytes do not depend on it"
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=0.001,
        help="share of unusable pictures to accept (default: %(default)s, and always 10)",
    )
    parser.add_argument("--set", action="append", default=[], metavar="k=v", help="change a key of the recipe")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import progress
    from collagan_dist.data.pack import pack
    from collagan_dist.data.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.root, args.out, args.set)
    if recipe.dataset == "celeba_aligned":
        print(
            "note: faces of the aligned set have their eyes in one place, which makes inpainting easier than the paper's unaligned faces"
        )
    with progress("packing", "pictures") as advance:
        manifest = pack(recipe, args.workers, args.max_bad, advance)
    for split, shards in manifest.splits.items():
        print(
            f"{split}: {manifest.samples(split)} samples in {len(shards)} shards, {sum(s.bytes for s in shards) / 1e6:.1f} MB"
        )
    if manifest.quarantined:
        print(f"{manifest.quarantined} unusable pictures left out, see {manifest.folder / 'quarantine.jsonl'}")
    print(f"{manifest.folder}: done; next: collagan train demo --data {manifest.folder}")
