"""What an evaluation computes beside the networks: our batches against one picture at a time; CPU-seconds, alternating in one process.

300 drawn faces of 128x128 with holes at O1 to O6, and made-up outputs: PSNR, SSIM, Dice and landmark errors of a model and of two baselines
(without the time that biharmonic filling itself takes, which is told apart). One at a time is what scikit-image and NumPy offer: SSIM of
the whole picture, counts class by class, a system of equations for every hole.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from skimage.metrics import structural_similarity
from skimage.restoration import inpaint_biharmonic

from benchmarks import alternate, drawn_shards, save
from collagan_dist.config.load import load_config
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.setup import sequential_ids
from collagan_dist.tasks import biharmonic, build_tasks
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.types import CLASSES, POSITIONS, Batch

FACES, SIZE, PREDICTORS = 300, 128, 3
Output = dict[str, torch.Tensor]


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = drawn_shards(Path(folder), 2 * FACES, 1, "--set", "store_size=176", "--set", "splits=[train]")
        split = SplitReader(read_manifest(shards), "train")
        work = [one for position in POSITIONS for one in batches(split, position)]
        block = batches(split, "block")
    tasks = build_tasks(load_config("stable", model="M*_isd"))

    def ours() -> int:
        for batch, output in work:
            for _ in range(PREDICTORS):
                for name, task in tasks.items():
                    task.measure(output[name], batch)
        return len(POSITIONS) * FACES

    def one_by_one() -> int:
        for batch, output in work:
            for _ in range(PREDICTORS):
                reference(batch, output)
        return len(POSITIONS) * FACES

    rates = alternate({"ours": ours, "one by one": one_by_one}, rounds=2)
    fills = {name: filling(kinds) for name, kinds in (("O1 to O6", work), ("block", block))}
    save(
        __file__,
        {
            "faces": FACES,
            "size": SIZE,
            "milliseconds_a_face_and_hole": {name: round(1e3 / rate, 3) for name, rate in rates.items()},
            "ratio": round(rates["ours"] / rates["one by one"], 2),
            "biharmonic_filling": fills,
        },
    )


def filling(work: list[tuple[Batch, Output]]) -> dict[str, float]:
    """Milliseconds a face of biharmonic filling, ours and scikit-image's, and the ratio."""

    def ours() -> int:
        for batch, _ in work:
            biharmonic.fill(*_pictures(batch))
        return faces

    def theirs() -> int:
        for batch, _ in work:
            for image, hole in zip(*_pictures(batch), strict=True):
                inpaint_biharmonic(image * ~hole, hole, channel_axis=0)
        return faces

    faces = sum(len(batch.ids_B) for batch, _ in work)
    rates = alternate({"ours": ours, "scikit-image": theirs}, rounds=2)
    found = {name: round(1e3 / rate, 2) for name, rate in rates.items()}
    return found | {"ratio": round(rates["ours"] / rates["scikit-image"], 2)}


def _pictures(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return batch.image_B3HW.double().numpy(), batch.hole_B1HW[:, 0].numpy()


def batches(split: SplitReader, position: str) -> list[tuple[Batch, Output]]:
    loader = Loader(split, View(SIZE, position, 0), 32, Decoders(1, torch.device("cpu")))
    found = []
    maps = {
        name: torch.randn(32, count, SIZE, SIZE) for name, count in (("segmentation", len(CLASSES)), ("landmarks", 5))
    }
    for batch in loader.batches(sequential_ids(np.arange(FACES), 32)):
        output = {"inpainting": (batch.image_B3HW + 0.1 * torch.randn_like(batch.image_B3HW)).clamp(-1, 1)}
        found.append((batch, output | {name: values[: len(batch.ids_B)] for name, values in maps.items()}))
    return found


def reference(batch: Batch, output: Output) -> None:
    truth, done = to_bytes(batch.image_B3HW), to_bytes(composite(output["inpainting"], batch))
    holes = batch.hole_B1HW[:, 0].numpy()
    for t, d, hole in zip(truth, done, holes, strict=True):
        _, ssim = structural_similarity(t, d, channel_axis=2, data_range=255, full=True, win_size=7)
        ssim[hole].mean()
        for a, b in ((t, d), (t[hole], d[hole])):
            np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    found, true = output["segmentation"].argmax(dim=1).to(torch.uint8), batch.label_BHW
    for where in (torch.ones_like(batch.hole_B1HW[:, 0]), batch.hole_B1HW[:, 0]):
        for maps, mask in ((true, where & (found == true)), (found, where), (true, where)):
            numbers = (maps.long() + len(CLASSES) * torch.arange(len(maps))[:, None, None])[mask]
            torch.bincount(numbers, minlength=len(CLASSES) * len(maps))
    points = output["landmarks"].flatten(2)
    np.unravel_index(points.argmax(2).numpy(), (SIZE, SIZE))
    np.pad(output["landmarks"].numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    np.unravel_index(points.argmax(2).numpy(), (SIZE, SIZE))


if __name__ == "__main__":
    main()
