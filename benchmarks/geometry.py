"""Where geometry belongs on a CPU: DALI decoding and warping, against DALI decoding with warping by OpenCV (as a CPU does) or torch
(as a GPU does); images per CPU-second.

Both decode the same stored crops (176 pixels) and give float pictures and label maps of 128 pixels under one affine matrix
a sample. One thread.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import alternate, save
from collagan_dist.data.loading import geometry
from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.shards.shard_reader import SplitReader, StoredSample
from collagan_dist.faces.layout import draw_faces

BATCH, ROUNDS, CANVAS, VIEW = 32, 4, 176, 128


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    draw_faces(folder / "faces", count=BATCH * 2, seed=1, workers=1)
    manifest = pack(
        Recipe(dataset="celeba", root=str(folder / "faces"), labels="Label/img_celeba", out=str(folder / "out")),
        workers=1,
    )
    split = SplitReader(manifest, "train")
    samples = [split.read(n) for n in range(BATCH)]
    matrix = np.stack(
        [
            geometry.view_to_stored(s, VIEW, geometry.Augmentation(np.array([0.02, 0.01]), 0.05, 1.05, n % 2 == 0))
            for n, s in enumerate(samples)
        ]
    )
    decode = Decoder(BATCH, CANVAS, True, False, 1, torch.device("cpu"))
    warping = _dali_warp()

    def decode_only() -> int:
        for _ in range(ROUNDS):
            decode(samples, np.zeros((BATCH, 4)))
        return ROUNDS * BATCH

    def ours() -> int:
        for _ in range(ROUNDS):
            image, label = decode(samples, np.zeros((BATCH, 4)))
            geometry.warp(image, label, matrix, np.arange(BATCH) % 2 == 0, VIEW)
        return ROUNDS * BATCH

    def on_device() -> int:
        for _ in range(ROUNDS):
            image, label = decode(samples, np.zeros((BATCH, 4)))
            assert label is not None
            inside = bool(geometry.stays_inside(matrix, VIEW, CANVAS).all())
            flip = torch.arange(BATCH) % 2 == 0
            geometry.warp_on_device(image, label, torch.from_numpy(matrix), flip, inside, VIEW)
        return ROUNDS * BATCH

    def dali() -> int:
        for _ in range(ROUNDS):
            _feed(warping, samples, matrix)
            warping.run()
        return ROUNDS * BATCH

    rates = alternate(
        {
            "decode only": decode_only,
            "DALI decode, OpenCV geometry": ours,
            "DALI decode, torch geometry": on_device,
            "DALI decode, DALI geometry": dali,
        }
    )
    ratio = rates["DALI decode, OpenCV geometry"] / rates["DALI decode, DALI geometry"]
    save(__file__, {"images_per_cpu_s": rates, "ratio OpenCV / DALI": round(ratio, 2)})


def _dali_warp():  # type: ignore[no-untyped-def]
    from nvidia.dali import Pipeline, fn, types

    pipe = Pipeline(batch_size=BATCH, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipe:
        jpg = fn.external_source(name="jpg", dtype=types.UINT8, ndim=1)
        png = fn.external_source(name="png", dtype=types.UINT8, ndim=1)
        matrix = fn.external_source(name="matrix", dtype=types.FLOAT, ndim=2)
        image = fn.decoders.image(jpg, output_type=types.RGB)
        label = fn.decoders.image(png, output_type=types.ANY_DATA)
        warp = {"matrix": matrix, "size": [VIEW, VIEW], "inverse_map": True, "fill_value": 0}
        image = fn.warp_affine(image, interp_type=types.INTERP_LINEAR, **warp)
        label = fn.warp_affine(label, interp_type=types.INTERP_NN, **warp)
        image = fn.crop_mirror_normalize(
            image, dtype=types.FLOAT, output_layout="CHW", mean=[127.5] * 3, std=[127.5] * 3
        )
        pipe.set_outputs(image, label)
    pipe.build()
    return pipe


def _feed(pipe, samples: list[StoredSample], matrix: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    pipe.feed_input("jpg", [s.jpg for s in samples])
    pipe.feed_input("png", [s.labels for s in samples])
    pipe.feed_input("matrix", list(matrix[:, :2].astype(np.float32)))


if __name__ == "__main__":
    main()
