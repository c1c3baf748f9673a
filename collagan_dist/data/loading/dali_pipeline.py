"""Decode and resize pictures by NVIDIA DALI, on a GPU or a CPU. The only file that imports DALI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


class DaliPipeline:
    """Decodes up to `batch` JPEGs at a time; with `resize`, to canvases that show a region of each.

    Raises ImportError where DALI is not installed.
    """

    def __init__(self, batch: int, canvas: int, labels: bool, resize: bool, threads: int, device: torch.device) -> None:
        self.batch, self.canvas, self.labels, self.resize = batch, canvas, labels, resize
        self.threads, self.device = threads, device
        self._pipe = self._build()

    def _build(self) -> Any:
        from nvidia.dali import Pipeline

        gpu = (self.device.index or 0) if self.device.type == "cuda" else None
        pipe = Pipeline(batch_size=self.batch, num_threads=self.threads, device_id=gpu, prefetch_queue_depth=1)
        with pipe:
            pipe.set_outputs(*self.graph("mixed" if gpu is not None else "cpu"))
        pipe.build()
        return pipe

    def graph(self, device: str) -> list[Any]:
        """Return the outputs of the graph, inside a DALI pipeline; `device` is that of the decoder."""
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
        self, jpgs: Sequence[np.ndarray], regions: np.ndarray, labels: Sequence[np.ndarray]
    ) -> list[torch.Tensor]:
        """Return uint8 pictures (B, H, W, 3) on the device and, with `resize` and label maps, those (B, H, W, 1) on the CPU.

        They are DALI's own buffers, valid until the next call. `regions` (B, 4) and `labels`, (h, w) each, are used with `resize`.
        Raises RuntimeError if a picture does not decode.
        """
        try:
            feed_arrays(self._pipe, "jpg", jpgs)
            if self.resize:
                feed_arrays(self._pipe, "region", list(regions.astype(np.float32)))
            if self.resize and labels:
                feed_arrays(self._pipe, "labels", [np.ascontiguousarray(label)[..., None] for label in labels], "HWC")
            return [torch.from_dlpack(output.as_tensor()) for output in self._pipe.run()]
        except RuntimeError:
            self._pipe = self._build()  # after an error, DALI's pipeline cannot be used again
            raise


def feed_arrays(pipe: Any, name: str, arrays: Sequence[np.ndarray], layout: str = "") -> None:
    """Feed the arrays of a batch to a source of a DALI pipeline, which copies them."""
    from nvidia.dali.tensors import TensorCPU, TensorListCPU

    # As a list of DALI's own: it takes longer to look at arrays one by one than to copy them.
    pipe.feed_input(name, TensorListCPU([TensorCPU(array, layout) for array in arrays], layout))
