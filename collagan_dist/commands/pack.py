"""`collagan pack`: a data set as shards."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist import shell
from collagan_dist.commands.arguments import add_max_bad, part_of, worker_count
from collagan_dist.units import format_things

if TYPE_CHECKING:
    from collagan_dist.data.readers.recipe import Recipe
    from collagan_dist.data.shards.manifest import Manifest

HELP = "convert a data set into shards; the same command continues an interrupted one"
EXAMPLE = """collagan pack celeba --root /data/CelebA --out packed/celeba
         collagan pack celeba --ray auto
         sbatch --array=0-15 slurm/pack.sh celeba; then collagan pack celeba --merge"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe",
        metavar="RECIPE",
        help="name of a recipe (celeba, drawn, ...), or a YAML file: reader, labels, size, splits",
    )
    parser.add_argument("--root", help="folder of the data set, instead of the recipe's")
    parser.add_argument("--out", help="folder of the shards, instead of the recipe's")
    parser.add_argument(
        "--workers",
        type=worker_count,
        default=0,
        help="processes; 0: one a core (default). The bytes do not depend on it",
    )
    # A part, the merge of parts, and a Ray cluster exclude each other.
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--ray", metavar="ADDRESS", help="pack on all nodes of a running Ray cluster (host:port, or auto)"
    )
    where.add_argument(
        "--part",
        metavar="i/n",
        type=part_of,
        help="pack every n-th shard only, from number i on (n/n is 0/n); needs --merge later",
    )
    where.add_argument("--merge", action="store_true", help="finish a data set that was packed in parts")
    add_max_bad(parser)
    parser.add_argument("--set", action="append", default=[], metavar="k=v", help="change a key of the recipe")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.data.packing import pack
    from collagan_dist.data.readers.recipe import load_recipe

    recipe = load_recipe(args.recipe, args.root, args.out, args.set)
    if recipe.dataset == "celeba_aligned":
        # The paper crops unaligned faces itself, so numbers on this set cannot be compared with it.
        print(
            "note: the eyes of aligned faces are always at the same position, which makes inpainting easier than the paper's unaligned faces"
        )
    if args.part is not None:
        _pack_part(args, recipe)
        return
    # A finished data set is not packed again; its time would be misleading.
    done_before = Path(recipe.out, "manifest.json").exists()
    began = time.monotonic()
    manifest = pack.merge(recipe, args.max_bad) if args.merge else _pack(args, recipe)
    _summary(manifest)
    if done_before:
        print(f"{manifest.folder}: was packed already and is unchanged; to pack again, remove it or give another --out")
    else:
        print(
            f"{manifest.folder}: done in {time.monotonic() - began:.0f} s; next: {shell.collagan('train', 'demo', '--data', manifest.folder)}"
        )


def _pack(args: argparse.Namespace, recipe: Recipe) -> Manifest:
    from collagan_dist.commands.progress import progress
    from collagan_dist.data.packing.pack import pack
    from collagan_dist.data.packing.shard_job import build_shard

    with progress("packing", "pictures") as advance:
        if args.ray is None:
            return pack(recipe, args.workers, args.max_bad, advance)
        # Ray's workers build shards; this process collects them and writes the manifest.
        from collagan_dist.sweep.ray_cluster import ray_map

        return pack(recipe, 0, args.max_bad, advance, builder=lambda jobs: ray_map(args.ray, build_shard, jobs))


def _pack_part(args: argparse.Namespace, recipe: Recipe) -> None:
    from collagan_dist.commands.progress import progress
    from collagan_dist.data.packing.pack import pack_part

    index, count = args.part
    with progress(f"packing part {index}/{count}", "pictures") as advance:
        parts = pack_part(recipe, index, count, args.workers, advance)
    if parts is None:
        print(f"{recipe.out}: is packed and merged already")
        return
    samples, bad = sum(p.shard.samples for p in parts), sum(len(p.quarantine) for p in parts)
    print(
        f"{recipe.out}: part {index}/{count} done, {format_things(samples, 'sample')} in {format_things(len(parts), 'shard')}, "
        f"{format_things(bad, 'unusable picture')}; "
        f"when all parts are: the same command with --merge in place of --part"
    )


def _summary(manifest: Manifest) -> None:
    for split, shards in manifest.splits.items():
        print(
            f"{split}: {format_things(manifest.samples(split), 'sample')} in {format_things(len(shards), 'shard')}, "
            f"{sum(s.bytes for s in shards) / 1e6:.1f} MB"
        )
    # The data set is usable without them, but somebody should look.
    if manifest.quarantined:
        print(
            f"{format_things(manifest.quarantined, 'unusable picture')} left out, see {manifest.folder / 'quarantine.jsonl'}"
        )
