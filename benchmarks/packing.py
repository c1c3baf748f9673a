"""Packing pictures of 178x218 as they are (store: original, without label maps), every one of them validated by decoding.

Images per CPU-second, one process, alternating: ours; bare libjpeg-turbo decode of the same bytes in memory; a plain loop over
webdataset's ShardWriter that opens and decodes with PIL. Then how long a packing takes that is half done already.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import simplejpeg

from benchmarks import alternate, save
from benchmarks.faces import aligned_set
from collagan_dist.data.packing.pack import pack, pack_part
from collagan_dist.data.packing.shard_job import build_shard
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards import wire_format

SAMPLES = 6144
count = itertools.count()


def main() -> None:
    root, what = aligned_set(SAMPLES)
    rates = alternate({"ours": ours(root), "libjpeg-turbo decode": decode(root), "ShardWriter + PIL": plain(root)})
    writing = alternate({"ours": write(root, wire_format.ShardWriter), "webdataset's TarWriter": write(root, Theirs)})
    whole, half = resume(root)
    save(
        __file__,
        {
            "data": f"{SAMPLES} {what}",
            "images_per_cpu_s": rates,
            "ratio to decode": round(rates["ours"] / rates["libjpeg-turbo decode"], 2),
            "ratio to ShardWriter + PIL": round(rates["ours"] / rates["ShardWriter + PIL"], 2),
            "writing_microseconds_a_sample": {name: round(1e6 / rate, 1) for name, rate in writing.items()},
            "packing_seconds": {"whole": round(whole, 2), "half done before": round(half, 2)},
        },
    )
    shutil.rmtree(root)


def recipe(root: Path, out: str) -> Recipe:
    return Recipe(
        dataset="celeba_aligned", root=str(root), out=str(root / out), store="original", samples_per_shard=256
    )


def ours(root: Path) -> Callable[[], int]:
    def run() -> int:
        out = f"ours-{next(count)}"
        pack(recipe(root, out), builder=lambda jobs: ((job, build_shard(job)) for job in jobs))
        shutil.rmtree(root / out)
        return SAMPLES

    return run


def decode(root: Path) -> Callable[[], int]:
    pictures = [path.read_bytes() for path in sorted((root / "Img/img_align_celeba").iterdir())]

    def run() -> int:
        for content in pictures:
            simplejpeg.decode_jpeg(content, "RGB")
        return len(pictures)

    return run


def plain(root: Path) -> Callable[[], int]:
    import webdataset
    from PIL import Image

    lines = (root / "Anno/list_landmarks_align_celeba.txt").read_text().splitlines()[2:]

    def run() -> int:
        out = root / f"plain-{next(count)}"
        out.mkdir()
        with webdataset.ShardWriter(str(out / "train-%06d.tar"), maxcount=256, verbose=0) as writer:
            for line in lines:
                name, *values = line.split()
                content = (root / "Img/img_align_celeba" / name).read_bytes()
                with Image.open(io.BytesIO(content)) as image:
                    width, height = image.convert("RGB").size
                points = [[int(x), int(y)] for x, y in zip(values[::2], values[1::2], strict=True)]
                meta = {"source": name, "landmarks": points, "width": width, "height": height}
                writer.write({"__key__": name.split(".")[0], "jpg": content, "json": json.dumps(meta).encode()})
        shutil.rmtree(out)
        return len(lines)

    return run


class Theirs:
    """webdataset's writer behind the same methods."""

    def __init__(self, file: BinaryIO) -> None:
        import webdataset

        self._tar = webdataset.TarWriter(file, mtime=0, user="", group="", encoder=False)

    def add(self, key: str, members: dict[str, bytes]) -> None:
        self._tar.write({"__key__": key, **members})

    def finish(self) -> None:
        self._tar.close()


def write(root: Path, writer: Callable[[BinaryIO], Any]) -> Callable[[], int]:
    """Samples of two members into a tar in memory."""
    pictures = [path.read_bytes() for path in sorted((root / "Img/img_align_celeba").iterdir())[:512]]

    def run() -> int:
        tar = writer(io.BytesIO())
        for number, content in enumerate(pictures):
            tar.add(f"{number:06d}", {"jpg": content, "json": b"{}" * 80})
        tar.finish()
        return len(pictures)

    return run


def resume(root: Path) -> tuple[float, float]:
    """Wall seconds of a packing from nothing, and of one that finds every second shard there; two processes."""
    began = time.perf_counter()
    pack(recipe(root, "whole"), workers=2)
    whole = time.perf_counter() - began
    pack_part(recipe(root, "half"), 0, 2, workers=2)
    began = time.perf_counter()
    pack(recipe(root, "half"), workers=2)
    return whole, time.perf_counter() - began


if __name__ == "__main__":
    main()
