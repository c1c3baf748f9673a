"""The loader: batches of one split on the device, from order, bytes, decoding, geometry and holes.

A thread makes batches ahead. On a GPU its work is queued on a stream of its own, and the networks' stream waits for it there.
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
from collagan_dist.data.loading.canvas_store import CanvasStore
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.fallback_reader import NOTHING, Ahead, Decoded, FallbackReader
from collagan_dist.data.loading.occlusion_boxes import OcclusionBoxes
from collagan_dist.data.loading.order import BatchIds
from collagan_dist.data.shards.shard_reader import DamagedSample, SplitReader, StoredSample
from collagan_dist.errors import DataError
from collagan_dist.types import FACE_SQUARE, POSITIONS, Batch

_READY_BATCHES = 2  # decoded ahead of the caller
_PREFETCH_BATCHES = 32  # by which a shard is prefetched before it is read
_PREFETCH_THREADS = 4
_CLOSE_SECONDS = 5.0  # that closing a loader waits for a read to end

T = TypeVar("T")


@dataclass(frozen=True)
class View:
    """What the networks see of a sample: size, augmentation (or None), kind of hole and its fill, and the seed.

    In a view of `training` all random choices depend on the epoch too, else on the sample alone, so that evaluations repeat.
    `points` and `labels` say which annotations the tasks need. O1 to O6 lie around the landmarks if `positions` says so
    and the split has some, else in the boxes of `fixed`.
    """

    image_size: int
    hole: str
    seed: int
    augment: Augment | None = None
    training: bool = False
    points: bool = True
    labels: bool = True
    fill: holes.Fill = "paper"
    positions: Literal["landmarks", "fixed"] = "landmarks"
    fixed: Mapping[str, Box] = field(default_factory=lambda: FIXED_POSITIONS)
    face_square: float = FACE_SQUARE


class Loader:
    """Makes batches of a split. Raises DataError if the split lacks annotations that the view needs.

    Loaders of training, which run beside others, have their own decoder; others share theirs and take turns.
    """

    def __init__(self, split: SplitReader, view: View, batch: int, decoders: Decoders, max_damaged: int = 100) -> None:
        device = decoders.device
        check_annotations(split, view.labels, view.points)
        view = _with_points(split, view)
        cv2.setNumThreads(1)  # views are small: OpenCV's threads cost more than they gain
        self.split, self.view, self.device = split, view, device
        self.canvas = geometry.canvas_size(view.image_size)
        recipe = split.manifest.recipe
        resize = recipe["store"] != "crop" or recipe["store_size"] != self.canvas
        self.upsamples = recipe["store"] == "crop" and recipe["store_size"] < self.canvas
        self.idle_seconds = 0.0  # in which the device had nothing to do because no batch was ready
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        decode = decoders.decoder(batch, self.canvas, view.labels, resize, shared=not view.training)
        self._read = FallbackReader(split, decode, view.points, view.training, max_damaged)
        self.damaged = self._read.damaged  # the damaged samples found so far

    def keep(self, store: CanvasStore) -> None:
        """Take canvases from a store, and put there those that are decoded."""
        self._read.store = store

    def batches(self, batch_ids: Iterator[BatchIds], prefetch: bool = False) -> Generator[Batch]:
        """Yield a Batch for each (sample numbers, epochs); reading and decoding run ahead in a thread.

        `prefetch` brings entire shards near before they are read; behind a URL this is always done. A damaged sample is
        replaced in training and left out at test (data/loading/fallback_reader.py).
        """
        # For orders that read from few shards at a time; a split that is fully shuffled keeps all of its shards in use.
        batch_ids = _prefetch_shards(batch_ids, self.split) if prefetch or self.split.is_remote else batch_ids
        work: Iterator = batch_ids
        if self._stream is not None:
            # In a thread of its own: bytes of the next batch are read while the GPU decodes this one.
            work = (item for (item,) in _run_ahead(batch_ids, self._read_bytes))
        for batch, is_made in self._count_idle(_run_ahead(work, self._load)):
            if batch is None:
                continue
            if is_made is not None:
                stream = torch.cuda.current_stream(self.device)
                stream.wait_event(is_made)
                for tensor in batch.tensors():
                    tensor.record_stream(stream)  # its memory is not used again before this stream has read it
            yield batch

    def _read_bytes(self, numbers: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray, Ahead]:
        return numbers, epochs, self._read.read_ahead(numbers, epochs)

    def _load(
        self, numbers: np.ndarray, epochs: np.ndarray, ahead: Ahead = NOTHING
    ) -> tuple[Batch | None, torch.cuda.Event | None]:
        """Make a batch, in the loader's thread; on a GPU with the event after which it may be read."""
        if self._stream is None:
            return self._make_batch(self._read(numbers, epochs)), None
        # The current device is a thread's: without this, all ranks of a node would also use its first GPU.
        torch.cuda.set_device(self.device)
        with torch.cuda.stream(self._stream):
            batch = self._make_batch(self._read(numbers, epochs, ahead))
            return batch, self._stream.record_event()

    def _count_idle(self, items: Iterator[tuple[T]]) -> Iterator[T]:
        while True:
            began = time.perf_counter()
            item = next(items, None)
            self.idle_seconds += time.perf_counter() - began
            if item is None:
                return
            yield item[0]

    def _make_batch(self, decoded: Decoded) -> Batch | None:
        """Apply geometry, holes and fills on the device; None if every sample was left out."""
        view, samples, ids, epochs = self.view, decoded.samples, decoded.ids, decoded.epochs
        if not samples:
            return None
        uids = np.array([s.uid for s in samples])
        epoch = epochs if view.training else np.full(len(ids), -1)
        drawn = geometry.draw_augmentation(rng.key64(view.seed, "geometry", epoch, uids), view.augment)
        one_by_one = [geometry.Augmentation(*one) for one in zip(*drawn, strict=True)]
        size, square = view.image_size, view.face_square
        pairs = zip(samples, one_by_one, strict=True)
        to_stored = np.stack([geometry.view_to_stored(sample, size, one, square) for sample, one in pairs])
        to_canvas = geometry.region_to_canvas(decoded.regions_B4, self.canvas) @ to_stored
        host = {"keys": rng.sample_keys(view.seed, epoch, uids)}
        if view.points:
            stored = np.array([s.landmarks for s in samples], np.float64)
            host["points"] = geometry.move_points(stored, np.linalg.inv(to_stored), drawn.flip).astype(np.float32)
        if view.hole in holes.ON_CPU:
            host["hole"] = holes.HOLES[view.hole](torch.from_numpy(host["keys"]), size).numpy()
        canvases = decoded.image_BHW3, decoded.label_BHW
        if self._stream is None:
            there = {name: torch.from_numpy(value) for name, value in host.items()}
            image, label = geometry.warp(*canvases, to_canvas, drawn.flip, size)
        else:
            there = _to_device({**host, "matrix": to_canvas, "flip": drawn.flip}, self.device)
            inside = bool(geometry.stays_inside(to_canvas, size, self.canvas).all())
            image, label = geometry.warp_on_device(*canvases, there["matrix"], there["flip"], inside, size)
        keys, points, hole = there["keys"], there.get("points"), there.get("hole")
        if hole is None:
            boxes = OcclusionBoxes(points if view.positions == "landmarks" else None, view.fixed)
            hole = holes.HOLES[view.hole](keys, size, boxes)
        filled = holes.occlude(image, hole, view.hole, keys, view.fill)
        return Batch(image, filled, hole, label, points, ids, epochs, keys)


_ALIGNMENT = 16  # bytes


def _to_device(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """Return the arrays on a GPU by one copy, for which nobody waits: from one pinned buffer, on the current stream."""
    # torch's allocator of pinned memory does not hand the buffer out again before the copy has been made.
    starts = [0]
    for array in arrays.values():
        starts.append(starts[-1] + -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT)
    pinned = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=True)
    content = pinned.numpy()
    for start, array in zip(starts, arrays.values(), strict=False):
        content[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    copied = pinned.to(device, non_blocking=True)
    return {
        name: copied[start : start + array.nbytes].view(torch.from_numpy(array[:0]).dtype).view(array.shape)
        for start, (name, array) in zip(starts, arrays.items(), strict=False)
    }


def check_annotations(split: SplitReader, needs_labels: bool, needs_points: bool) -> None:
    """Raise DataError where the first sample lacks what tasks need: a data set has it for all samples or for none."""
    first = _first(split)
    labels, points = first.labels is not None, first.landmarks is not None
    missing = []
    if needs_labels and not labels:
        missing.append("label maps, which a task of this model needs")
    if needs_points and not points:
        missing.append("landmarks, which a task of this model needs")
    if missing:
        model = "M_i" + "s" * labels + "d" * points
        raise DataError(
            f"{split.manifest.folder}: has no {' and no '.join(missing)}; train --model {model}, "
            "or pack or adopt a data set that has them"
        )


def _with_points(split: SplitReader, view: View) -> View:
    # A task may not need landmarks, but holes around them do.
    around = view.hole in POSITIONS and view.positions == "landmarks"
    wanted = around and not view.points and _first(split).landmarks is not None
    return replace(view, points=True) if wanted else view


def _first(split: SplitReader) -> StoredSample:
    """Return the first sample that is not damaged."""
    for number in range(len(split) - 1):
        with suppress(DamagedSample):
            return split.read(number)
    return split.read(len(split) - 1)


def _prefetch_shards(batch_ids: Iterator[BatchIds], split: SplitReader) -> Iterator[BatchIds]:
    """Yield the same entries, _PREFETCH_BATCHES of them after their shards were requested."""
    # Errors of these threads are dropped: reading the shard raises them again, where they are handled.
    waiting: deque[BatchIds] = deque()
    needed: dict[int, int] = {}  # shard: the last entry that reads it
    pool = ThreadPoolExecutor(_PREFETCH_THREADS, thread_name_prefix="prefetch")
    try:
        for number, entry in enumerate(batch_ids):
            for shard in sorted(split.shards_of(entry[0])):
                if number - needed.get(shard, -_PREFETCH_BATCHES - 1) > _PREFETCH_BATCHES:
                    pool.submit(split.prefetch, shard)
                needed[shard] = number
            waiting.append(entry)
            if len(waiting) > _PREFETCH_BATCHES:
                yield waiting.popleft()
        yield from waiting
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _run_ahead(batch_ids: Iterator, load: Callable[..., T]) -> Iterator[tuple[T]]:
    """Yield (load(*entry),) of each entry, computed ahead by one thread, whose errors are raised here."""
    # A tuple of one, so that a result of None differs from the end of the queue.
    ready: queue.Queue = queue.Queue(_READY_BATCHES)
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
            for ids in batch_ids:
                if closed.is_set():
                    return
                put((load(*ids),))
            put(None)
        except BaseException as error:  # raised where the batches are used
            put(error)
        finally:
            if isinstance(batch_ids, Generator):
                batch_ids.close()  # now, and not by the garbage collector: it may have prefetch threads

    thread = threading.Thread(target=work, name="loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join(_CLOSE_SECONDS)
