"""Order, bytes, decoding and geometry put together: batches of one split, for training or in plain order.

A thread reads and decodes ahead; the rest runs on the device, in the caller's thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from collagan_dist import counter
from collagan_dist.config import Augment
from collagan_dist.contract import Batch
from collagan_dist.data import geometry, holes
from collagan_dist.data.decode import Decoder
from collagan_dist.data.shards import Split, Stored
from collagan_dist.errors import DataError

_AHEAD = 2  # decoded batches that wait


@dataclass(frozen=True)
class View:
    """How samples are looked at: size, augmentation (None at test), kind of hole, and the seed of all of it."""

    image_size: int
    hole: str
    seed: int
    augment: Augment | None = None
    points: bool = True
    labels: bool = True


@dataclass
class _Decoded:
    samples: list[Stored]
    regions: np.ndarray
    image_BHW3: torch.Tensor
    label_BHW: torch.Tensor | None


class Loader:
    """Batches of a split. `labels` and `points` of the view say which annotations the tasks need.

    Raises DataError when the split lacks them.
    """

    def __init__(self, split: Split, view: View, batch: int, threads: int, device: torch.device) -> None:
        first = split.read(0)
        _require(split, view, first)
        self.split, self.view, self.device = split, view, device
        self.canvas = geometry.canvas_size(view.image_size)
        recipe = split.manifest.recipe
        resize = recipe["store"] != "crop" or recipe["store_size"] != self.canvas
        self._exact = not resize
        self.waited = 0.0  # seconds in which the device had nothing to do because no batch was ready
        self._decode = Decoder(batch, self.canvas, view.labels, resize, threads, device)

    def batches(self, plan: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
        """A Batch for each (sample numbers, epochs) of the plan; reading and decoding run ahead in a thread."""
        ready = _ahead(plan, self._load)
        while True:
            began = time.perf_counter()
            entry = next(ready, None)
            self.waited += time.perf_counter() - began
            if entry is None:
                return
            (ids, epochs), decoded = entry
            yield self.prepare(decoded, ids, epochs)

    def _load(self, ids: np.ndarray) -> _Decoded:
        samples = [self.split.read(int(i)) for i in ids]
        regions = np.stack([self._region(s) for s in samples])
        try:
            image, label = self._decode(samples, regions)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            names = ", ".join(s.key for s in samples)
            raise DataError(
                f"{self.split.manifest.folder}: one of the samples {names} does not decode; "
                f"run `collagan verify {self.split.manifest.folder} --deep` ({str(error).splitlines()[0]})"
            ) from None
        return _Decoded(samples, regions, image, label)

    def _region(self, sample: Stored) -> np.ndarray:
        return np.array([0.0, 0.0, sample.height, sample.width]) if self._exact else geometry.canvas_region(sample)

    def prepare(self, decoded: _Decoded, ids: np.ndarray, epochs: np.ndarray) -> Batch:
        """Geometry, holes and fills on the device."""
        view, samples = self.view, decoded.samples
        uids = np.array([s.uid for s in samples])
        # At test everything hangs on the sample alone, so that tables repeat.
        epoch = epochs if view.augment is not None else np.full(len(ids), -1)
        shift, angle, scale, flip = geometry.draw(counter.key64(view.seed, "geometry", epoch, uids), view.augment)
        to_stored = np.stack(
            [
                geometry.view_to_stored(s, view.image_size, shift[i], angle[i], scale[i], flip[i])
                for i, s in enumerate(samples)
            ]
        )
        to_canvas = np.stack([geometry.region_to_canvas(r, self.canvas) for r in decoded.regions]) @ to_stored
        grid = geometry.sample_grid(to_canvas, view.image_size, self.canvas, self.device)
        image = geometry.warp_image(decoded.image_BHW3, grid)
        label = points = None
        if decoded.label_BHW is not None:
            label = geometry.swap_labels(
                geometry.warp_labels(decoded.label_BHW, grid), torch.from_numpy(flip).to(self.device)
            )
        if view.points:
            stored = np.array([s.landmarks for s in samples], np.float64)
            moved = geometry.move_points(stored, np.linalg.inv(to_stored), flip)
            points = torch.from_numpy(moved.astype(np.float32)).to(self.device)
        keys = torch.from_numpy(counter.sample_keys(view.seed, epoch, uids)).to(self.device)
        hole = holes.HOLES[view.hole](keys, view.image_size)
        return Batch(image, holes.occlude(image, hole, view.hole, keys), hole, label, points, ids, epochs, keys)


def _require(split: Split, view: View, first: Stored) -> None:
    has = {"s": first.labels is not None, "d": first.landmarks is not None}
    missing = []
    if view.labels and not has["s"]:
        missing.append("label maps, which the segmentation task needs")
    if view.points and not has["d"]:
        missing.append("landmarks, which the landmarks task needs")
    if missing:
        model = "M_i" + "".join(letter for letter in "sd" if has[letter])
        raise DataError(
            f"{split.manifest.folder}: has no {' and no '.join(missing)}; train --model {model}, "
            "or pack a data set that has them"
        )


Plan = tuple[np.ndarray, np.ndarray]


def _ahead(plan: Iterator[Plan], load: Callable[[np.ndarray], _Decoded]) -> Iterator[tuple[Plan, _Decoded]]:
    """`load` of each plan entry, done _AHEAD entries early by one thread. Its errors are raised here."""
    ready: queue.Queue = queue.Queue(_AHEAD)
    closed = threading.Event()

    def put(item: object) -> None:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for entry in plan:
                if closed.is_set():
                    return
                put((entry, load(entry[0])))
            put(None)
        except BaseException as error:  # to be raised where the batches are used
            put(error)

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
