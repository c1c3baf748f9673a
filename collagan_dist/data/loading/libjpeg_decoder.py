"""Decode and resize pictures on a CPU without DALI, which exists for Linux alone: by libjpeg-turbo and Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from collagan_dist.data.shards.sample_check import decode_picture


class LibjpegDecoder:
    """Does on a CPU what DaliPipeline does, within 2 grey levels of it; label maps are equal."""

    def __init__(self, canvas: int, resize: bool, threads: int) -> None:
        self.canvas, self.resize = canvas, resize
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __call__(
        self, jpgs: Sequence[np.ndarray], regions: np.ndarray, labels: Sequence[np.ndarray]
    ) -> list[torch.Tensor]:
        """Return what DaliPipeline returns. Raises RuntimeError for a picture that does not decode."""
        boxes = [(left, top, right, bottom) for top, left, bottom, right in regions.tolist()]
        pictures = list(self._pool.map(self._picture, jpgs, boxes))
        if len({picture.shape for picture in pictures}) > 1:
            raise RuntimeError("pictures of different sizes")
        outputs = [torch.from_numpy(np.stack(pictures))]
        if self.resize and labels:
            resized = [
                self._resized(label, box, Image.Resampling.NEAREST) for label, box in zip(labels, boxes, strict=True)
            ]
            outputs.append(torch.from_numpy(np.stack(resized)[..., None]))
        return outputs

    def _picture(self, jpg: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
        try:
            pixels = decode_picture(jpg)
        except ValueError as error:
            raise RuntimeError(str(error)) from None
        # Pillow's filter grows with the scale, as DALI's does with antialias.
        return self._resized(pixels, box, Image.Resampling.BILINEAR) if self.resize else pixels

    def _resized(
        self, pixels: np.ndarray, box: tuple[float, float, float, float], method: Image.Resampling
    ) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels).resize((self.canvas, self.canvas), method, box))
