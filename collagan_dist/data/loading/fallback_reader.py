"""Read and decode samples by number, and substitute or leave out those that are damaged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import simplejpeg
import torch

from collagan_dist import shell
from collagan_dist.data.face_square import square_from_size
from collagan_dist.data.loading import geometry
from collagan_dist.data.loading.canvas_store import CanvasStore
from collagan_dist.data.loading.decode import Decoder, RefusedSample
from collagan_dist.data.readers.picture import encode_jpeg, encode_label_map
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.shard_reader import DamagedSample, SplitReader, StoredSample
from collagan_dist.errors import ClusterError, DataError, mark_on_all_ranks

# Samples by number that were read before they are needed.
Ahead = Mapping[int, StoredSample]
NOTHING: Ahead = MappingProxyType({})


@dataclass(frozen=True)
class DamageRecord:
    """A damaged sample by its number in the split; the reason names shard and key."""

    number: int
    reason: str


def check_damage_limit(folder: Path | RemoteFolder, count: int, limit: int) -> None:
    """Raise DataError for more than data.max_damaged damaged samples. `count` is the sum over all ranks."""
    if count > limit:
        text = (
            f"{folder}: {count} samples are damaged, more than data.max_damaged ({limit}) allows; each was named above: "
            f"run `{shell.collagan('verify', '--deep', folder)}`, and copy the shards again or pack again"
        )
        raise mark_on_all_ranks(DataError(text))


@dataclass
class Decoded:
    """Samples of a batch with their canvases; `regions_B4` is what those show: top, left, bottom, right in stored pixels."""

    ids: np.ndarray
    epochs: np.ndarray
    samples: list[StoredSample]
    regions_B4: np.ndarray
    image_BHW3: torch.Tensor
    label_BHW: torch.Tensor | None


_MAX_GPU_DIFFERENCE = 8  # grey levels of 255: decoders round differently, by 1 or 2
# Damaged samples above the limit that a rank still replaces: the count of all ranks stops them together, while a rank
# that stopped alone would leave the others waiting.
_EXTRA_DAMAGED = 64


class FallbackReader:
    """Reads and decodes samples of a split; `damaged` lists those that were found damaged.

    With `replace`, the next undamaged sample of the split takes the place of a damaged one. Without, it is left out.
    """

    # The substitute depends on the data alone, so batches keep their size and any number of ranks sees the same.

    def __init__(self, split: SplitReader, decode: Decoder, points: bool, replace: bool, limit: int) -> None:
        self.split, self.decode, self.points, self.replace, self.limit = split, decode, points, replace, limit
        self._checked_shards: set[int] = set()  # whose pictures a GPU was seen to decode as the CPU does
        self.store: CanvasStore | None = None
        self._kept: dict[int, StoredSample] = {}  # samples in the store, without their files
        self.damaged: list[DamageRecord] = []
        self._substitutes: dict[int, int] = {}  # number of a damaged sample: its neighbour, or -1 to leave it out

    def read_ahead(self, ids: np.ndarray, epochs: np.ndarray) -> Ahead:
        """Return by number the samples that a call with these arguments would read first; none of them if one cannot be read."""
        shown = self._shown(ids)
        kept = self.store.holds(shown, epochs) if self.store is not None else np.zeros(len(shown), bool)
        try:
            return {number: self._read(number) for number in shown[(shown >= 0) & ~kept].tolist()}
        except DataError:
            return {}  # the call meets the same error, and handles it

    def __call__(self, ids: np.ndarray, epochs: np.ndarray, ahead: Ahead = NOTHING) -> Decoded:
        """Read and decode samples; `ahead` are those that `read_ahead` has read."""
        # As one batch at first: only if that fails is each sample decoded alone, so undamaged data costs nothing.
        shown = self._shown(ids)
        try:
            return self._decoded(shown[shown >= 0], epochs[shown >= 0], ahead)
        except torch.OutOfMemoryError:
            raise
        except (DamagedSample, RuntimeError):
            self._check_decoder()
            before = len(self.damaged)
            shown = np.array([self._first_decodable(number) for number in ids.tolist()], np.int64)
            if len(self.damaged) == before:
                raise  # every sample decodes alone
            return self._decoded(shown[shown >= 0], epochs[shown >= 0])

    def _check_decoder(self) -> None:
        """Decode a blank picture. Raises what the decoder raises if the fault is its own and not the data's."""
        side = self.decode.canvas
        blank = np.zeros((side, side, 3), np.uint8)
        jpg, png = encode_jpeg(blank), encode_label_map(blank[..., 0])
        files = np.frombuffer(jpg, np.uint8), np.frombuffer(png, np.uint8)
        sample = StoredSample("", 0, *files, None, side, side, square_from_size(side, side))
        self.decode([sample], np.array([[0.0, 0.0, side, side]]))

    def _shown(self, ids: np.ndarray) -> np.ndarray:
        """Return the numbers of the samples that take the places of these, as far as known; -1 for none."""
        return np.array([self._substitute(number) for number in ids.tolist()], np.int64)

    def _substitute(self, number: int) -> int:
        """Return the number of the sample that takes the place of `number`, as far as known; -1 for none."""
        while number in self._substitutes:
            number = self._substitutes[number]
        return number

    def _first_decodable(self, number: int) -> int:
        """Return the first sample from `number` on that decodes, -1 to leave it out, and note the damaged ones."""
        while (number := self._substitute(number)) >= 0 and (reason := self._decode_error(number)) is not None:
            if len(self._substitutes) + 1 >= len(self.split):
                raise DataError(f"{reason}; no sample of the split {self.split.name!r} is left")
            self._substitutes[number] = (number + 1) % len(self.split) if self.replace else -1
            self.damaged.append(DamageRecord(number, reason))
            if len(self.damaged) > self.limit + _EXTRA_DAMAGED:  # no use to search further
                raise DataError(
                    f"{reason}; and {len(self.damaged) - 1} samples before it, more than data.max_damaged allows"
                )
        return number

    def _decode_error(self, number: int) -> str | None:
        """Return what is wrong with a sample, None if it decodes."""
        one = np.array([number])
        try:
            self._decode(one, one)
        except DamagedSample as error:
            return str(error)
        except torch.OutOfMemoryError:
            raise
        except RefusedSample as error:
            return f"{self.split.describe(number)} cannot be used: {error}"
        except RuntimeError:
            return f"{self.split.describe(number)} does not decode"
        return None

    def _decoded(self, ids: np.ndarray, epochs: np.ndarray, ahead: Ahead = NOTHING) -> Decoded:
        """Take canvases from the store, and decode and store the others. Without a store, decode all."""
        if self.store is None:
            return self._decode(ids, epochs, ahead)
        kept = self.store.holds(ids, epochs)
        fresh = self._decode(ids[~kept], epochs[~kept], ahead)
        if fresh.samples:
            self.store.put(fresh.ids, fresh.epochs, fresh.image_BHW3, fresh.label_BHW)
        if not kept.any():
            return fresh
        image, label = self.store.take(ids[kept])
        others = iter(fresh.samples)
        samples = [
            self._without_files(number) if k else next(others) for number, k in zip(ids.tolist(), kept, strict=True)
        ]
        if fresh.samples:
            image = _merged(kept, image, fresh.image_BHW3)
            label = None if label is None or fresh.label_BHW is None else _merged(kept, label, fresh.label_BHW)
        return Decoded(ids, epochs, samples, self._regions(samples), image, label)

    def _without_files(self, number: int) -> StoredSample:
        """Return a sample whose canvas is stored: its annotations are read once."""
        if number not in self._kept:
            empty = np.empty(0, np.uint8)
            self._kept[number] = self._read(number)._replace(jpg=empty, labels=None)
        return self._kept[number]

    def _decode(self, ids: np.ndarray, epochs: np.ndarray, ahead: Ahead = NOTHING) -> Decoded:
        if not len(ids):
            return Decoded(ids, epochs, [], np.zeros((0, 4)), torch.empty(0), None)
        samples = [ahead[number] if number in ahead else self._read(number) for number in ids.tolist()]
        regions = self._regions(samples)
        image, label = self.decode(samples, regions)
        if self.decode.device.type != "cpu" and not self.decode.resize:
            self._check_each_shard(ids, samples, image)
        return Decoded(ids, epochs, samples, regions, image, label)

    def _check_each_shard(self, ids: np.ndarray, samples: list[StoredSample], image_BHW3: torch.Tensor) -> None:
        """Compare one sample of each shard with the CPU's decoder. Raises ClusterError where the GPU's differs."""
        # Its hardware has been seen to report pictures as decoded that it had left out.
        for row, number in enumerate(ids.tolist()):
            shards = self.split.shards_of(np.array([number]))
            if shards <= self._checked_shards:
                continue
            self._checked_shards |= shards
            expected = simplejpeg.decode_jpeg(samples[row].jpg, "RGB")
            difference = np.abs(image_BHW3[row].cpu().numpy().astype(int) - expected).max()
            if difference > _MAX_GPU_DIFFERENCE:
                raise ClusterError(
                    f"{self.split.describe(number)}: the GPU decodes it {difference} grey levels away from the CPU; leave this node out "
                    "and have it checked (`collagan doctor`), or update its driver"
                )

    def _regions(self, samples: list[StoredSample]) -> np.ndarray:
        if self.decode.resize:
            return np.stack([geometry.canvas_region(sample) for sample in samples])
        # Every stored picture is a canvas.
        return np.array([(0.0, 0.0, sample.height, sample.width) for sample in samples])

    def _read(self, number: int) -> StoredSample:
        """Read a sample. Raises DamagedSample if it lacks an annotation that the tasks need."""
        sample = self.split.read(number)
        if self.decode.labels and sample.labels is None:
            raise DamagedSample(f"{self.split.describe(number)} has no label map")
        if self.points and sample.landmarks is None:
            raise DamagedSample(f"{self.split.describe(number)} has no landmarks")
        return sample


def _merged(kept: np.ndarray, stored: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """Return both in the order of the batch."""
    order = np.argsort(np.argsort(~kept, kind="stable"), kind="stable")
    return torch.cat([stored, fresh])[torch.from_numpy(order).to(stored.device)]
