import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from collagan_dist.config.tree import FIXED_POSITIONS, Augment
from collagan_dist.data.loading import holes
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.inference.score import score
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.data.layouts import write_folder
from tests.data.loading.first_batch import CPU, extent, first_batch
from tests.data.packed import folder_recipe
from tests.data.remote_shards import names, remote_manifest
from tests.training.small import equal, small, weights


def test_training_from_a_url_is_training_from_the_folder(shards, server, cache, tmp_path):
    """Bit for bit; its run folder names the URL, from which it is evaluated."""
    train(small(shards.folder), tmp_path / "folder", World())
    from_url = small(Path("/"), data__shards=server.url, data__cache={"folder": str(cache)})
    train(from_url, tmp_path / "url", World())
    assert equal(weights(tmp_path / "folder", 7), weights(tmp_path / "url", 7))
    assert json.loads((tmp_path / "url/data.json").read_text())["shards"] == server.url
    scores = [score(tmp_path / name, World())[0][0] for name in ("folder", "url")]
    assert scores[0] == scores[1]
    assert names(cache) == {n for s in shards for n in (f"{s.sha256}.tar", f"{s.idx_sha256}.idx")}


def test_shards_are_asked_for_before_they_are_read(shards, server, cache):
    """Each once, while the first batches are still being looked at; the batches are those of the folder."""

    def plan() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, 48, 4):  # twelve batches over three shards
            yield np.arange(first, first + 4), np.zeros(4, np.int64)

    def loader(manifest: Manifest) -> Loader:
        return Loader(
            SplitReader(manifest, "train"), View(32, "block", 0, Augment(), training=True), 4, Decoders(1, CPU)
        )

    batches = loader(remote_manifest(server.url, cache)).batches(plan())
    first = next(batches)
    wanted = {f"{s.sha256}.tar" for s in shards.shards("train")}
    last = time.monotonic() + 20
    while not wanted <= names(cache) and time.monotonic() < last:
        time.sleep(0.02)
    assert wanted <= names(cache)
    near = list(loader(shards).batches(plan(), prefetch=True))
    assert all(torch.equal(a.image_B3HW, b.image_B3HW) for a, b in zip([first, *batches], near, strict=True))
    assert all(server.requests[s.name] == 1 for s in shards.shards("train"))


def test_views_without_landmarks_take_the_fixed_boxes(shards, drawn, tmp_path):
    fixed = OcclusionBoxes().hole("O1", 4, 64, CPU)
    around = first_batch(shards, count=4, hole="O1", points=False, labels=False)  # a model of inpainting alone
    assert torch.equal(around.hole_B1HW, OcclusionBoxes(around.points_BK2).hole("O1", 4, 64, CPU))
    assert not torch.equal(around.hole_B1HW, fixed)
    for points in (False, True):
        asked = first_batch(shards, count=4, hole="O1", positions="fixed", points=points)
        assert (asked.points_BK2 is not None) == points and torch.equal(asked.hole_B1HW, fixed)
    write_folder(drawn, tmp_path / "set", columns=())
    (tmp_path / "set/faces.csv").unlink()
    shutil.rmtree(tmp_path / "set/labels")
    without = pack(folder_recipe(tmp_path / "set", tmp_path / "out"), workers=1)
    unknown = first_batch(without, count=4, hole="O1", points=False, labels=False)
    assert unknown.points_BK2 is None and torch.equal(unknown.hole_B1HW, fixed)
    boxes = dict(FIXED_POSITIONS, O1=(0, 0, 2, 4))
    other = first_batch(shards, count=4, hole="O1", positions="fixed", fixed=boxes)
    assert [extent(h) for h in other.hole_B1HW[:, 0]] == [(0, 0, 1, 2)] * 4


def test_the_fill_of_a_view(shards):
    for fill in ("paper", "noise", "zero", "mean", "smooth"):
        batch = first_batch(shards, count=4, hole="O3", fill=fill)
        expected = holes.occlude(batch.image_B3HW, batch.hole_B1HW, "O3", batch.keys_B2, fill)
        assert torch.equal(batch.input_B3HW, expected)
    again = [first_batch(shards, count=n, hole="O3").input_B3HW[:2] for n in (2, 4)]
    assert torch.equal(*again)  # a sample's fill depends on the sample alone
