"""Order, bytes, decoding and geometry put together: batches of one split, for training or in plain order.

A thread reads and decodes ahead. Geometry, holes and fills run there too on a CPU, else on the device in the caller's thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch

from collagan_dist import rng
from collagan_dist.config.tree import FIXED_POSITIONS, Augment, Box
from collagan_dist.data.loading import geometry, holes
from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.loading.fallback_reader import Decoded, FallbackReader
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.data.loading.order import BatchIds
from collagan_dist.data.shards.shard_reader import DamagedSample, SplitReader, StoredSample
from collagan_dist.errors import DataError
from collagan_dist.types import FACE_SQUARE, POSITIONS, Batch

_AHEAD = 2  # decoded batches that wait
_WARM_AHEAD = 32  # batches by which shards are brought near before they are read
_WARMERS = 4  # threads that do so
_LEAVE = 5.0  # seconds that closing a loader waits for a read under way

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """How samples are looked at: size, augmentation (None at test), kind of hole and its fill, and the seed of all of it.

    O1 to O6 lie around the landmarks where `positions` says so and the split has some, else in the boxes of `fixed`.
    """

    image_size: int
    hole: str
    seed: int
    augment: Augment | None = None
    points: bool = True
    labels: bool = True
    fill: holes.Fill = "paper"
    positions: Literal["landmarks", "fixed"] = "landmarks"
    fixed: Mapping[str, Box] = field(default_factory=lambda: FIXED_POSITIONS)
    face_square: float = FACE_SQUARE


class Loader:
    """Batches of a split. `labels` and `points` of the view say which annotations the tasks need; `max_damaged` is data.max_damaged.

    Raises DataError when the split lacks them.
    """

    def __init__(
        self, split: SplitReader, view: View, batch: int, threads: int, device: torch.device, max_damaged: int = 100
    ) -> None:
        _require(split, view)
        view = _with_points(split, view)
        cv2.setNumThreads(1)  # views are small: OpenCV's own threads cost more than they give
        self.split, self.view, self.device = split, view, device
        self.canvas = geometry.canvas_size(view.image_size)
        recipe = split.manifest.recipe
        resize = recipe["store"] != "crop" or recipe["store_size"] != self.canvas
        self.upsamples = recipe["store"] == "crop" and recipe["store_size"] < self.canvas
        self.idle_seconds = 0.0  # seconds in which the device had nothing to do because no batch was ready
        decode = Decoder(batch, self.canvas, view.labels, resize, threads, device)
        self._read = FallbackReader(split, decode, view.points, view.augment is not None, max_damaged)
        self.damaged = self._read.damaged  # the damaged samples met so far

    def batches(self, plan: Iterator[BatchIds], prefetch: bool = False) -> Generator[Batch]:
        """A Batch for each (sample numbers, epochs) of the plan; reading and decoding run ahead in a thread.

        With `prefetch`, as always from a URL, whole shards are brought near before they are read: for plans that keep to few
        of them at a time. A damaged sample is replaced in training and left out at test (data/loading/fallback_reader.py).
        """
        plan = _prefetched(plan, self.split) if prefetch or self.split.is_remote else plan
        if self.device.type == "cpu":
            ready = self._timed(_ahead(plan, lambda *entry: self._prepared(self._read(*entry))))
        else:  # geometry belongs to the stream of the networks
            ready = map(self._prepared, self._timed(_ahead(plan, self._read)))
        yield from (batch for batch in ready if batch is not None)

    def _timed(self, items: Iterator[tuple[T]]) -> Iterator[T]:
        while True:
            began = time.perf_counter()
            item = next(items, None)
            self.idle_seconds += time.perf_counter() - began
            if item is None:
                return
            yield item[0]

    def _prepared(self, decoded: Decoded) -> Batch | None:
        """Geometry, holes and fills on the device; None where every sample was left out."""
        view, samples, ids, epochs = self.view, decoded.samples, decoded.ids, decoded.epochs
        if not samples:
            return None
        uids = np.array([s.uid for s in samples])
        # At test everything hangs on the sample alone, so that tables repeat.
        epoch = epochs if view.augment is not None else np.full(len(ids), -1)
        shift, angle, scale, flip = geometry.draw_augmentation(
            rng.key64(view.seed, "geometry", epoch, uids), view.augment
        )
        to_stored = np.stack(
            [
                geometry.view_to_stored(s, view.image_size, shift[i], angle[i], scale[i], flip[i], view.face_square)
                for i, s in enumerate(samples)
            ]
        )
        to_canvas = geometry.region_to_canvas(decoded.regions_B4, self.canvas) @ to_stored
        image, label = geometry.warp(decoded.image_BHW3, decoded.label_BHW, to_canvas, flip, view.image_size)
        points = None
        if view.points:
            stored = np.array([s.landmarks for s in samples], np.float64)
            moved = geometry.move_points(stored, np.linalg.inv(to_stored), flip)
            points = torch.from_numpy(moved.astype(np.float32)).to(self.device)
        keys = torch.from_numpy(rng.sample_keys(view.seed, epoch, uids)).to(self.device)
        places = OcclusionBoxes(points if view.positions == "landmarks" else None, view.fixed)
        hole = holes.HOLES[view.hole](keys, view.image_size, places)
        filled = holes.occlude(image, hole, view.hole, keys, view.fill)
        return Batch(image, filled, hole, label, points, ids, epochs, keys)


def _require(split: SplitReader, view: View) -> None:
    first = _first(split)
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


def _with_points(split: SplitReader, view: View) -> View:
    """The view that asks for landmarks too where its holes lie around them and the split has them."""
    around = view.hole in POSITIONS and view.positions == "landmarks"
    wanted = around and not view.points and _first(split).landmarks is not None
    return replace(view, points=True) if wanted else view


def _first(split: SplitReader) -> StoredSample:
    """The first sample that can be read."""
    for number in range(len(split) - 1):
        with suppress(DamagedSample):
            return split.read(number)
    return split.read(len(split) - 1)


def _prefetched(plan: Iterator[BatchIds], split: SplitReader) -> Iterator[BatchIds]:
    """The plan, with its shards asked for _WARM_AHEAD entries early. What goes wrong there shows when they are read."""
    waiting: deque[BatchIds] = deque()
    needed: dict[int, int] = {}  # shard: the last entry that reads it
    pool = ThreadPoolExecutor(_WARMERS, thread_name_prefix="warm")
    try:
        for number, entry in enumerate(plan):
            for shard in sorted(split.shards_of(entry[0])):
                if number - needed.get(shard, -_WARM_AHEAD - 1) > _WARM_AHEAD:
                    pool.submit(split.prefetch, shard)
                needed[shard] = number
            waiting.append(entry)
            if len(waiting) > _WARM_AHEAD:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ahead(plan: Iterator[BatchIds], load: Callable[[np.ndarray, np.ndarray], T]) -> Iterator[tuple[T]]:
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
                put((load(*entry),))
            put(None)
        except BaseException as error:  # to be raised where the batches are used
            put(error)
        finally:
            if isinstance(plan, Generator):
                plan.close()  # now, and not when its last reference goes: it may have threads of its own

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join(_LEAVE)
