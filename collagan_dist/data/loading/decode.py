"""Decode JPEGs, by DALI, and label maps to uint8 batches on the device. The only file that imports DALI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.sample_check import WrongSample, check_jpeg
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.errors import ConfigError


class RefusedSample(RuntimeError):
    """Sound bytes that do not make a sample: another size, values that are no classes. The message says what."""


class Decoder:
    """Decodes up to `batch` samples at a time to pictures and label maps of `canvas` x `canvas` pixels.

    Without `resize`, every stored picture must have the size of the canvas.
    """

    # DALI only decodes pictures and resizes. Label maps decode in a third of its time (label_png.py). Geometry is ours
    # (geometry.py): it costs next to nothing on a GPU, less than DALI's on a CPU (benchmarks/geometry.py), and labels stay exact.

    def __init__(self, batch: int, canvas: int, labels: bool, resize: bool, threads: int, device: torch.device) -> None:
        self.batch, self.canvas, self.labels, self.resize = batch, canvas, labels, resize
        self.threads, self.device = threads, device
        self._pipe = self._build_pipeline()

    def _build_pipeline(self) -> Any:
        try:
            from nvidia.dali import Pipeline
        except ImportError as error:
            raise ConfigError(
                f"DALI cannot be imported ({error}); pip install 'collagan_dist[cuda13]', or [cuda12] for a driver older than 580; "
                "a machine without a GPU takes either"
            ) from None
        gpu = (self.device.index or 0) if self.device.type == "cuda" else None
        pipe = Pipeline(batch_size=self.batch, num_threads=self.threads, device_id=gpu, prefetch_queue_depth=1)
        with pipe:
            pipe.set_outputs(*self._graph("mixed" if gpu is not None else "cpu"))
        pipe.build()
        return pipe

    def _graph(self, device: str) -> list[Any]:
        import nvidia.dali as dali

        fn: Any = dali.fn
        types: Any = dali.types

        # nvJPEG on a GPU ("mixed"), libjpeg-turbo on a CPU; only with fancy upsampling do both give the same picture.
        jpg = fn.external_source(name="jpg", dtype=types.UINT8, ndim=1)
        picture = fn.decoders.image(
            jpg, device=device, output_type=types.RGB, jpeg_fancy_upsampling=True, adjust_orientation=False
        )
        if not self.resize:
            return [picture]
        # [top, left, bottom, right] of what the canvas shows, in stored pixels.
        region = fn.external_source(name="region", dtype=types.FLOAT, ndim=1)
        roi = {"size": [self.canvas, self.canvas], "roi_start": region[0:2], "roi_end": region[2:4]}
        pictures = fn.resize(picture, **roi, interp_type=types.INTERP_LINEAR, antialias=True)
        if not self.labels:
            return [pictures]
        labels = fn.external_source(name="labels", dtype=types.UINT8, layout="HWC")
        return [pictures, fn.resize(labels, **roi, interp_type=types.INTERP_NN)]

    def __call__(
        self, samples: Sequence[StoredSample], regions: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (image_BHW3, label_BHW) uint8 on the device; `regions` is (B, 4) float32 top, left, bottom, right.

        On a CPU they are DALI's own buffers, valid until the next call; on a GPU they are copies.
        Raises RuntimeError if a sample does not decode or has another size than the canvas.
        """
        labels = [self._check(sample) for sample in samples]
        try:
            feed_arrays(self._pipe, "jpg", [s.jpg for s in samples])
            if self.resize:
                feed_arrays(self._pipe, "region", list(regions.astype(np.float32)))
            if self.resize and self.labels:
                feed_arrays(self._pipe, "labels", [np.ascontiguousarray(label)[..., None] for label in labels], "HWC")
            image, *resized = [torch.from_dlpack(o.as_tensor()) for o in self._pipe.run()]
        except RuntimeError:
            self._pipe = self._build_pipeline()  # after an error, DALI's pipeline cannot be used again
            raise
        if image.shape[1:3] != (self.canvas, self.canvas):
            size = "x".join(map(str, image.shape[1:3]))
            raise RuntimeError(f"pictures of {size} where {self.canvas}x{self.canvas} was stored")
        label = None
        if self.labels:
            label = resized[0].squeeze(-1) if self.resize else torch.from_numpy(np.stack(labels))
        return (image, label) if self.device.type == "cpu" else self._copies(image, label)

    def _check(self, sample: StoredSample) -> np.ndarray:
        """Return the label map of a sample, nothing where none is needed, once both files were seen to be its own."""
        try:
            check_jpeg(sample.jpg, sample.width, sample.height)
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
        label = None if label is None else label.pin_memory().to(self.device, non_blocking=True)
        # The loader's thread waits for them, and for nothing else: its stream is its own.
        torch.cuda.current_stream(self.device).synchronize()
        return image, label


def feed_arrays(pipe: Any, name: str, arrays: Sequence[np.ndarray], layout: str = "") -> None:
    """Feed the arrays of a batch to a source of a DALI pipeline, which copies them."""
    from nvidia.dali.tensors import TensorCPU, TensorListCPU

    # As a list of DALI's own: it takes longer to look at arrays one by one than to copy them.
    pipe.feed_input(name, TensorListCPU([TensorCPU(array, layout) for array in arrays], layout))


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
