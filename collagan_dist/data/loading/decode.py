"""Decode samples to uint8 batches on the device: pictures by DALI, where it exists, and label maps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from collagan_dist.data.loading.dali_pipeline import DaliPipeline
from collagan_dist.data.loading.libjpeg_decoder import LibjpegDecoder
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.sample_check import WrongSample, check_picture
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.errors import ConfigError

logger = logging.getLogger(__name__)


class RefusedSample(RuntimeError):
    """Sound bytes that do not make a sample: another size, values that are no classes. The message says what."""


class Decoder:
    """Decodes up to `batch` samples at a time to pictures and label maps of `canvas` x `canvas` pixels.

    Without `resize`, every stored picture must have the size of the canvas.
    """

    # DALI only decodes pictures and resizes. Label maps decode in a third of its time (label_png.py). Geometry is ours
    # (geometry.py): it costs next to nothing on a GPU, less than DALI's on a CPU (benchmarks/geometry.py), and labels stay exact.

    def __init__(self, batch: int, canvas: int, labels: bool, resize: bool, threads: int, device: torch.device) -> None:
        self.canvas, self.labels, self.resize, self.device = canvas, labels, resize, device
        self._decode: DaliPipeline | LibjpegDecoder
        try:
            self._decode = DaliPipeline(batch, canvas, labels, resize, threads, device)
        except ImportError as error:
            if device.type == "cuda":
                raise ConfigError(
                    f"DALI cannot be imported ({error}); pip install 'collagan_dist[cuda13]', or [cuda12] for a driver older than 580"
                ) from None
            _say_without_dali(str(error))
            self._decode = LibjpegDecoder(canvas, resize, threads)

    def __call__(
        self, samples: Sequence[StoredSample], regions: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (image_BHW3, label_BHW) uint8 on the device; `regions` is (B, 4) float32 top, left, bottom, right.

        On a CPU they may be DALI's own buffers, valid until the next call; on a GPU they are copies.
        Raises RuntimeError if a sample does not decode or has another size than the canvas.
        """
        labels = [self._check(sample) for sample in samples]
        image, *resized = self._decode([s.jpg for s in samples], regions, labels if self.labels else [])
        if image.shape[1:3] != (self.canvas, self.canvas):
            size = "x".join(map(str, image.shape[1:3]))
            raise RuntimeError(f"pictures of {size} where {self.canvas}x{self.canvas} was stored")
        label = None
        if self.labels:
            label = resized[0].squeeze(-1) if self.resize else torch.from_numpy(np.stack(labels))
        return (image, label) if self.device.type == "cpu" else self._copies(image, label)

    @property
    def library(self) -> str:
        """What decodes pictures, for people."""
        return "DALI" if isinstance(self._decode, DaliPipeline) else "libjpeg-turbo"

    def _check(self, sample: StoredSample) -> np.ndarray:
        """Return the label map of a sample, nothing where none is needed, once both files were seen to be its own."""
        try:
            check_picture(sample.jpg, sample.width, sample.height)
            if not self.labels:
                return np.empty(0)
            if sample.labels is None:
                raise RefusedSample("it has no label map")
            return decode_label_map(sample.labels, sample.width, sample.height)
        except WrongSample as error:
            raise RefusedSample(str(error)) from None
        except ValueError as error:
            raise RuntimeError(f"sample {sample.key}: {error}") from None

    def _copies(self, image: torch.Tensor, label: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return copies on the GPU, which DALI's next call does not overwrite."""
        image = image.clone()
        if label is not None:
            label = torch.empty_like(label, pin_memory=True).copy_(label).to(self.device, non_blocking=True)
        # The loader's thread waits for them, and for nothing else: its stream is its own.
        torch.cuda.current_stream(self.device).synchronize()
        return image, label


@cache
def _say_without_dali(error: str) -> None:
    logger.warning(
        "warning: DALI cannot be imported (%s): pictures are decoded by libjpeg-turbo, up to 2 grey levels from DALI's; "
        "on Linux, pip install 'collagan_dist[cuda13]' brings it",
        error,
    )


class Decoders:
    """Makes decoders of one rank; those that are `shared` are kept, since on a GPU a new one takes long."""

    def __init__(self, threads: int, device: torch.device) -> None:
        self.threads, self.device = threads, device
        self._shared: dict[tuple[int, int, bool, bool], Decoder] = {}

    def decoder(self, batch: int, canvas: int, labels: bool, resize: bool, shared: bool) -> Decoder:
        """Return a decoder; a shared one may be in the hands of others, who must have done with it."""
        what, known = (batch, canvas, labels, resize), self._shared if shared else {}
        if what not in known:
            known[what] = Decoder(*what, self.threads, self.device)
        return known[what]
