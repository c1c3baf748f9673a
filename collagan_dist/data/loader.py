"""Order, bytes, decoding and geometry put together: batches of one split, for training or in plain order.

A thread reads and decodes ahead; the rest runs on the device, in the caller's thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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

Plan = tuple[np.ndarray, np.ndarray]  # sample numbers, epochs


@dataclass(frozen=True)
class View:
    """How samples are looked at: size, augmentation (None at test), kind of hole, and the seed of all of it."""

    image_size: int
    hole: str
    seed: int
    augment: Augment | None = None
    points: bool = True
    labels: bool = True


@dataclass(frozen=True)
class Damaged:
    """A sample, by its number in the split, that is not what packing wrote any more; the reason names shard and key."""

    number: int
    reason: str


def check_damaged(folder: Path, count: int, limit: int) -> None:
    """Refuse more than data.max_damaged damaged samples. `count` is that of all ranks, so all of them refuse."""
    if count > limit:
        error = DataError(
            f"{folder}: {count} samples are damaged, more than data.max_damaged ({limit}) allows; each was named above: "
            "run `collagan verify --deep`, and copy the shards anew or pack again"
        )
        error.shared = True
        raise error


@dataclass
class _Decoded:
    ids: np.ndarray
    epochs: np.ndarray
    samples: list[Stored]
    regions: np.ndarray
    image_BHW3: torch.Tensor
    label_BHW: torch.Tensor | None


class Loader:
    """Batches of a split. `labels` and `points` of the view say which annotations the tasks need.

    Raises DataError when the split lacks them.
    """

    def __init__(self, split: Split, view: View, batch: int, threads: int, device: torch.device) -> None:
        _require(split, view)
        self.split, self.view, self.device = split, view, device
        self.canvas = geometry.canvas_size(view.image_size)
        recipe = split.manifest.recipe
        resize = recipe["store"] != "crop" or recipe["store_size"] != self.canvas
        self._exact = not resize
        self.damaged: list[Damaged] = []
        self._instead: dict[int, int] = {}  # damaged sample: its neighbour that is shown in its place, or -1
        self.waited = 0.0  # seconds in which the device had nothing to do because no batch was ready
        self._decode = Decoder(batch, self.canvas, view.labels, resize, threads, device)

    def batches(self, plan: Iterator[Plan]) -> Iterator[Batch]:
        """A Batch for each (sample numbers, epochs) of the plan; reading and decoding run ahead in a thread.

        In training the place of a damaged sample is taken by the next sound one of the split, which depends on nothing
        but the data, so batches stay whole on any number of ranks; at test it is left out. `damaged` names them.
        """
        ready = _ahead(plan, self._load)
        while True:
            began = time.perf_counter()
            decoded = next(ready, None)
            self.waited += time.perf_counter() - began
            if decoded is None:
                return
            if len(decoded.ids):
                yield self.prepare(decoded)

    def _load(self, ids: np.ndarray, epochs: np.ndarray) -> _Decoded:
        """The plan's samples decoded. All are taken as sound at first; only when that fails is each looked at alone."""
        shown = np.array([self._shown(int(i)) for i in ids], np.int64)
        try:
            return self._decoded(shown[shown >= 0], epochs[shown >= 0])
        except torch.OutOfMemoryError:
            raise
        except (DataError, RuntimeError):
            known = len(self.damaged)
            shown = np.array([self._sound(int(i)) for i in ids], np.int64)
            if len(self.damaged) == known:
                raise  # every sample decodes alone: not the data is at fault
            return self._decoded(shown[shown >= 0], epochs[shown >= 0])

    def _shown(self, number: int) -> int:
        """The sample that is shown for `number`, as far as known; -1 for none."""
        while number in self._instead:
            number = self._instead[number]
        return number

    def _sound(self, number: int) -> int:
        """The sample that is shown for `number`, found out by decoding."""
        while (number := self._shown(number)) >= 0 and (reason := self._trouble(number)) is not None:
            if len(self._instead) + 1 >= len(self.split):
                raise DataError(f"{reason}; no sample of the split {self.split.name!r} is left")
            self._instead[number] = (number + 1) % len(self.split) if self.view.augment is not None else -1
            self.damaged.append(Damaged(number, reason))
        return number

    def _trouble(self, number: int) -> str | None:
        """What is wrong with a sample; None when it decodes."""
        one = np.array([number])
        try:
            self._decoded(one, one)
        except DataError as error:
            return str(error)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return f"{self.split.place(number)} does not decode"
        return None

    def _decoded(self, ids: np.ndarray, epochs: np.ndarray) -> _Decoded:
        if not len(ids):
            return _Decoded(ids, epochs, [], np.zeros((0, 4)), torch.empty(0), None)
        samples = [self.split.read(int(i)) for i in ids]
        regions = np.stack([self._region(s) for s in samples])
        return _Decoded(ids, epochs, samples, regions, *self._decode(samples, regions))

    def _region(self, sample: Stored) -> np.ndarray:
        return np.array([0.0, 0.0, sample.height, sample.width]) if self._exact else geometry.canvas_region(sample)

    def prepare(self, decoded: _Decoded) -> Batch:
        """Geometry, holes and fills on the device."""
        view, samples, ids, epochs = self.view, decoded.samples, decoded.ids, decoded.epochs
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
        image, label = geometry.warp(decoded.image_BHW3, decoded.label_BHW, to_canvas, flip, view.image_size)
        points = None
        if view.points:
            stored = np.array([s.landmarks for s in samples], np.float64)
            moved = geometry.move_points(stored, np.linalg.inv(to_stored), flip)
            points = torch.from_numpy(moved.astype(np.float32)).to(self.device)
        keys = torch.from_numpy(counter.sample_keys(view.seed, epoch, uids)).to(self.device)
        hole = holes.HOLES[view.hole](keys, view.image_size)
        return Batch(image, holes.occlude(image, hole, view.hole, keys), hole, label, points, ids, epochs, keys)


def _require(split: Split, view: View) -> None:
    first = _first(split)
    folder = split.manifest.folder
    if view.labels and first.labels is None:
        raise DataError(
            f"{folder}: has no label maps, which the segmentation task needs; pack with `labels`, or train --model M_id"
        )
    if view.points and first.landmarks is None:
        raise DataError(f"{folder}: has no landmarks, which the landmarks task needs; train --model M_is")


def _first(split: Split) -> Stored:
    """The first sample that can be read."""
    for number in range(len(split) - 1):
        with suppress(DataError):
            return split.read(number)
    return split.read(len(split) - 1)


def _ahead(plan: Iterator[Plan], load: Callable[[np.ndarray, np.ndarray], _Decoded]) -> Iterator[_Decoded]:
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
                put(load(*entry))
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
