"""Reading for training, on a CPU, one thread; images per CPU-second, the methods alternating in one process.

whole batches   pictures and label maps of 128x128 under one affine view each, floats in [-1, 1] and class numbers: our loader
                against webdataset with PIL, which gets the same matrices
decoding        pictures and label maps as dense bytes: ours (order, bytes, DALI's decoders) against DALI's own webdataset reader
feeding         order, samples as they are stored, and their pictures into DALI, without decoding: microseconds of CPU a sample
"""

from __future__ import annotations

import collections
import gc
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks import alternate, save
from benchmarks.faces import aligned_set
from collagan_dist import rng
from collagan_dist.config.tree import Augment
from collagan_dist.data.face_square import square_from_landmarks
from collagan_dist.data.loading import geometry
from collagan_dist.data.loading.canvas_store import CanvasStore
from collagan_dist.data.loading.dali_pipeline import feed_arrays
from collagan_dist.data.loading.decode import Decoder, Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.order import Order
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader, StoredSample
from collagan_dist.types import World

SAMPLES, BATCH, SIZE, CANVAS, SEED = 2048, 32, 128, 176, 1
STEPS = 512 // BATCH  # of one round
CPU = torch.device("cpu")
BatchIds = Iterator[tuple[np.ndarray, np.ndarray]]


def main() -> None:
    torch.set_num_threads(1)
    root, what = aligned_set(SAMPLES)
    recipe = Recipe(
        dataset="celeba_aligned",
        root=str(root),
        labels="Label/img_align_celeba",
        out=str(root / "out"),
        samples_per_shard=256,
    )
    manifest = pack(recipe)
    split = SplitReader(manifest, "train")
    # As training does: else each collection also walks what imports made, 2 % of decoding and more with every import.
    gc.collect()
    gc.freeze()
    ways = {"ours": whole_batches(split), "ours, data.keep": whole_batches(split, keep=True)}
    batches = alternate({**ways, "webdataset + PIL": webdataset_and_pil(split)})
    decoding = alternate({"ours": decode_only(split), "DALI's webdataset reader": dali_reader(manifest)})
    feeding = alternate({"feeding": feed(split)})["feeding"]
    save(
        __file__,
        {
            "data": f"{SAMPLES} {what}, packed as crops of {CANVAS} pixels",
            "batches_images_per_cpu_s": batches,
            "batches_ratio": round(batches["ours"] / batches["webdataset + PIL"], 2),
            "decoding_images_per_cpu_s": decoding,
            "decoding_ratio": round(decoding["ours"] / decoding["DALI's webdataset reader"], 3),
            "feeding_microseconds_a_sample": round(1e6 / feeding, 1),
        },
    )
    shutil.rmtree(root)


def rounds(split: SplitReader) -> Iterator[BatchIds]:
    """Endless training, a round of STEPS batches at a time."""
    order = Order(len(split), BATCH, SEED, 256, 128)
    for start in itertools.count(0, STEPS):
        yield order.steps(start, start + STEPS, World())


def whole_batches(split: SplitReader, keep: bool = False) -> Callable[[], int]:
    view = View(SIZE, "none", SEED, Augment(), training=True)
    loader, plans = Loader(split, view, BATCH, Decoders(1, CPU)), rounds(split)
    if keep:
        loader.keep(CanvasStore(len(split), CANVAS, True, CPU))
        for ids in Order(len(split), BATCH, SEED, 256, 128).steps(0, len(split) // BATCH, World()):
            collections.deque(loader.batches(iter([ids])), maxlen=0)
        for _ in range(len(split) // BATCH // STEPS):  # the first epoch is done
            next(plans)
    return lambda: sum(len(batch.image_B3HW) for batch in loader.batches(next(plans)))


def webdataset_and_pil(split: SplitReader) -> Callable[[], int]:
    """The same outputs as a careful user of webdataset writes them."""
    import webdataset
    from PIL import Image

    def view(sample: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        meta = json.loads(sample["json"])
        square, nothing = square_from_landmarks(meta["landmarks"]), np.empty(0)
        stored = StoredSample("", 0, nothing, None, meta["landmarks"], meta["width"], meta["height"], square)
        key = rng.key64(SEED, "geometry", 0, np.array([rng.name_id(sample["__key__"])]))
        drawn = geometry.draw_augmentation(key, Augment())
        matrix = geometry.view_to_stored(stored, SIZE, geometry.Augmentation(*(values[0] for values in drawn)))
        # PIL counts from pixel corners, we from their centres.
        matrix[:2, 2] += 0.5 - 0.5 * matrix[:2, :2].sum(axis=1)
        how = ((SIZE, SIZE), Image.Transform.AFFINE, tuple(matrix[:2].ravel()))
        with Image.open(io.BytesIO(sample["jpg"])) as image, Image.open(io.BytesIO(sample["seg.png"])) as labels:
            picture = np.asarray(image.convert("RGB").transform(*how, resample=Image.Resampling.BILINEAR))
            classes = np.asarray(labels.transform(*how, resample=Image.Resampling.NEAREST))
        floats = torch.from_numpy(picture.copy()).permute(2, 0, 1).float().mul_(1 / 127.5).sub_(1)
        return floats, torch.from_numpy(classes.copy())

    urls = [str(split.manifest.folder / shard.name) for shard in split.manifest.shards(split.name)]
    samples = iter(webdataset.WebDataset(urls, shardshuffle=False).repeat())

    def run() -> int:
        for _ in range(STEPS):
            views = [view(next(samples)) for _ in range(BATCH)]
            torch.stack([v[0] for v in views]), torch.stack([v[1] for v in views])
        return STEPS * BATCH

    return run


def decode_only(split: SplitReader) -> Callable[[], int]:
    decode, plans = Decoder(BATCH, CANVAS, True, False, 1, CPU), rounds(split)

    def run() -> int:
        for ids, _ in next(plans):
            decode([split.read(int(i)) for i in ids], np.zeros((BATCH, 4)))
        return STEPS * BATCH

    return run


def dali_reader(manifest: Manifest) -> Callable[[], int]:
    from nvidia.dali import fn, pipeline_def, types

    shards = manifest.shards("train")

    @pipeline_def(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def reader():  # type: ignore[no-untyped-def]
        jpg, seg = fn.readers.webdataset(
            paths=[str(manifest.folder / s.name) for s in shards], index_paths=[str(manifest.folder / s.index_name) for s in shards],
            ext=["jpg", "seg.png"], missing_component_behavior="error", random_shuffle=True, initial_fill=256, seed=SEED,
        )  # fmt: skip
        return fn.decoders.image(jpg, output_type=types.RGB), fn.decoders.image(seg, output_type=types.ANY_DATA)

    pipe = reader()
    pipe.build()

    def run() -> int:
        for _ in range(STEPS):
            [torch.from_dlpack(o.as_tensor()).clone() for o in pipe.run()]
        return STEPS * BATCH

    return run


def feed(split: SplitReader) -> Callable[[], int]:
    from nvidia.dali import Pipeline, fn, types

    plans = rounds(split)
    pipe = Pipeline(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipe:
        pipe.set_outputs(fn.external_source(name="jpg", dtype=types.UINT8, ndim=1))
    pipe.build()

    def run() -> int:
        for ids, _ in next(plans):
            feed_arrays(pipe, "jpg", [split.read(int(i)).jpg for i in ids])
            pipe.run()
        return STEPS * BATCH

    return run


if __name__ == "__main__":
    main()
