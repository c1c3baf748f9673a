"""`collagan adopt`: WebDataset tars that exist as a data set, without writing to them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from collagan_dist import shell
from collagan_dist.commands.arguments import add_max_bad, worker_count
from collagan_dist.types import SPLITS
from collagan_dist.units import format_things

if TYPE_CHECKING:
    from collagan_dist.data.shards.manifest import Manifest

HELP = "train on WebDataset tars that exist: manifest, index and checks beside them; no tar is written"
EXAMPLE = """collagan adopt /data/faces
         collagan adopt train-000.tar val-000.tar --out adopted
         collagan adopt 'https://data.example.org/faces/train-{000..099}.tar' --out adopted"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tars",
        metavar="TARS",
        nargs="+",
        help="tars, or folders that hold *.tar at any depth, as paths or URLs (of a web server tars only); {000..099} stands for several",
    )
    parser.add_argument("--out", help="folder of manifest and indexes (default: beside the tars; needed for URLs)")
    parser.add_argument(
        "--split-by",
        choices=("auto", "names", "hash"),
        default="auto",
        help="names: train, val, test in names or folders of the tars; hash: 80 / 10 / 10 by a hash of each identity, or key without one; "
        "auto (default): by names if there are any, else by the hash, and so one tar alone that is not called train",
    )
    parser.add_argument(
        "--ignore",
        choices=("labels", "landmarks"),
        action="append",
        default=[],
        help="leave out an annotation that is wrong, or that only some samples have",
    )
    parser.add_argument("--workers", type=worker_count, default=0, help="processes; 0: one a core (default)")
    add_max_bad(parser)


def run(args: argparse.Namespace) -> None:
    from collagan_dist.commands.progress import progress
    from collagan_dist.config.models import CONTROLS
    from collagan_dist.data.packing.adopt import Adoption, adopt
    from collagan_dist.data.packing.tar_list import find_tars

    ignore = tuple(sorted(set(args.ignore)))
    adoption = Adoption(find_tars(args.tars), Path(args.out) if args.out else None, args.split_by, ignore, args.max_bad)
    with progress("adopting", "tars") as advance:
        found = adopt(adoption, args.workers, advance)
    manifest, counts = found.manifest, found.counts
    labels, points = _has(manifest)
    for line in (*_splits(manifest), *_annotations(labels, points), *_notes(manifest, counts or Counter())):
        print(line)
    folder = manifest.folder
    if counts is None:
        print(f"{folder}: was adopted already; sizes and indexes are unchanged")
        return
    print(f"{folder}: done; next: {shell.collagan('verify', folder, '--deep')}")
    if "train" not in manifest.splits:
        split = next(iter(manifest.splits))
        print(shell.collagan("evaluate", "MODEL", "--data", folder, "--split", split))
        return
    # The one with most tasks, of those that the paper has.
    model = max((name for name in _models(labels, points) if name not in CONTROLS), key=len)
    print(shell.collagan("train", "demo", "--model", model, "--data", folder))


def _splits(manifest: Manifest) -> Iterator[str]:
    from collagan_dist.data.packing.tar_list import splits_named

    for split, shards in manifest.splits.items():
        yield f"{split}: {format_things(manifest.samples(split), 'sample')} in {format_things(len(shards), 'tar')}"
    hashed = "identity, where it has one, else its key" if "hash_of" in manifest.recipe else "key"
    all_train = "all_train" in manifest.recipe
    how = "names of the tars" if manifest.recipe["split_by"] == "names" else f"a hash of each sample's {hashed}"
    yield f"all are of train: {how} would leave none to train on" if all_train else f"splits by {how}"
    names = {shard.name for shard in manifest}
    if len(names) == 1 and manifest.recipe["split_by"] == "hash" and not all_train and (named := splits_named(*names)):
        yield f"note: it is one tar, so its name does not decide; `--split-by names` takes all of it as {' or '.join(sorted(named))}"
    if missing := [split for split in SPLITS if split not in manifest.splits]:
        by_names = manifest.recipe["split_by"] == "names"
        # Samples of one key are of one split, in whatever tars they lie.
        why = (
            "`--split-by hash` draws all three"
            if by_names
            else "there are too few keys or identities, or tars repeat them"
        )
        yield f"note: no sample is of {' or '.join(missing)}; {why}"


def _has(manifest: Manifest) -> tuple[bool, bool]:
    """Return whether the samples have label maps and landmarks: all of them or none."""
    from collagan_dist.data.shards.sample_check import parse_meta
    from collagan_dist.data.shards.shard_files import read_index

    # The index alone: the tars may be behind a URL.
    index = read_index(manifest.folder, next(iter(manifest)))
    _, _, _, parts, line = index[0]
    return "seg.png" in parts, parse_meta(line or b"")[0].landmarks is not None


def _models(labels: bool, points: bool) -> list[str]:
    """Return the names of the paper's models that these annotations are enough for."""
    from collagan_dist.config.models import CONTROLS, MODELS

    return [name for name in (*MODELS, *CONTROLS) if (labels or "s" not in name) and (points or "d" not in name)]


def _annotations(labels: bool, points: bool) -> Iterator[str]:
    from collagan_dist.config.models import PEERS

    if not labels:
        yield "no label maps (KEY.seg.png): segmentation cannot be trained"
    if not points:
        yield "no landmarks (in KEY.json): landmarks cannot be trained"
    yield f"models that can be trained (--model): {' '.join((*_models(labels, points), *PEERS))}"


def _notes(manifest: Manifest, counts: Counter[str]) -> Iterator[str]:
    unused = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()) if name.startswith("."))
    if unused:
        yield f"not used: {unused}"
    if counts["turned"]:
        yield f"note: {format_things(counts['turned'], 'picture')} with an EXIF orientation are seen as stored, not turned"
    if counts["profile"]:
        yield f"note: {format_things(counts['profile'], 'picture')} with a colour profile other than sRGB are read as sRGB"
    if count := counts["other index"]:
        yield f"note: {format_things(count, 'NAME.idx file')}, there before, not of the tar as it is: remove what is not needed"
    if manifest.quarantined:
        path = Path(str(manifest.folder)) / "quarantine.jsonl"
        yield f"{format_things(manifest.quarantined, 'unusable sample')} left out, see {path}"
