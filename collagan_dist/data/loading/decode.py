"""Decode JPEGs and label maps to uint8 batches on the device, by DALI. The only file that imports DALI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from collagan_dist.data.shards.sample_check import WrongSample, check_headers, check_labels
from collagan_dist.data.shards.shard_reader import StoredSample
from collagan_dist.errors import ConfigError


class RefusedSample(RuntimeError):
    """Sound bytes that do not make a sample: another size, values that are no classes. The message says what."""


class Decoder:
    """Decodes up to `batch` samples at a time to pictures and label maps of `canvas` x `canvas` pixels.

    Without `resize`, every stored picture must have the size of the canvas.
    """

    # DALI only decodes and resizes. Geometry is ours (geometry.py): it costs next to nothing on a GPU, less than DALI's
    # on a CPU (benchmarks/geometry.py), and labels stay exact.

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
        outputs, peaks = [picture], []
        if self.labels:
            png = fn.external_source(name="png", dtype=types.UINT8, ndim=1)
            outputs.append(fn.decoders.image(png, device="cpu", output_type=types.ANY_DATA, adjust_orientation=False))
            # Before resizing, which may leave out the one pixel that is no class.
            peaks = [fn.reductions.max(outputs[1])]
        if self.resize:
            # [top, left, bottom, right] of what the canvas shows, in stored pixels.
            region = fn.external_source(name="region", dtype=types.FLOAT, ndim=1)
            roi = {"size": [self.canvas, self.canvas], "roi_start": region[0:2], "roi_end": region[2:4]}
            methods = ({"interp_type": types.INTERP_LINEAR, "antialias": True}, {"interp_type": types.INTERP_NN})
            outputs = [fn.resize(o, **roi, **method) for o, method in zip(outputs, methods, strict=False)]
        if self.labels and device == "mixed":
            outputs[1] = outputs[1].gpu()
        return outputs + peaks

    def __call__(
        self, samples: Sequence[StoredSample], regions: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return (image_BHW3, label_BHW) uint8 on the device; `regions` is (B, 4) float32 top, left, bottom, right.

        On a CPU they are DALI's own buffers, valid until the next call; on a GPU they are copies.
        Raises RuntimeError if a sample does not decode or has another size than the canvas.
        """
        for sample in samples:
            self._check(sample)
        try:
            self._pipe.feed_input("jpg", [s.jpg for s in samples])
            if self.resize:
                self._pipe.feed_input("region", list(regions.astype(np.float32)))
            if self.labels:
                self._pipe.feed_input("png", [s.labels for s in samples])
            outputs = self._pipe.run()
            image, *label = self._tensors(outputs[: 1 + self.labels])
        except RuntimeError:
            self._pipe = self._build_pipeline()  # after an error, DALI's pipeline cannot be used again
            raise
        shapes, side = [tuple(one.shape[1:]) for one in (image, *label)], self.canvas
        if shapes != [(side, side, 3), (side, side, 1)][: len(shapes)]:
            raise RuntimeError(f"pictures and label maps of {shapes} where {side}x{side} was stored")
        if not label:
            return image, None
        _check_values(outputs[2])
        return image, label[0].squeeze(-1)

    def _check(self, sample: StoredSample) -> None:
        labels = sample.labels
        if self.labels and labels is None:
            raise RefusedSample("it has no label map")
        try:
            check_headers(sample.width, sample.height, sample.jpg, labels if self.labels else None)
        except WrongSample as error:
            raise RefusedSample(str(error)) from None
        except ValueError as error:
            raise RuntimeError(f"sample {sample.key}: {error}") from None

    def _tensors(self, outputs: Sequence[Any]) -> list[torch.Tensor]:
        tensors = [torch.from_dlpack(o.as_tensor()) for o in outputs]
        if self.device.type == "cpu":
            return tensors
        # Copies, because the next call may come before these are read. The loader's thread waits for them, and for nothing
        # else: its stream is its own.
        copies = [tensor.clone() for tensor in tensors]
        torch.cuda.current_stream(self.device).synchronize()
        return copies


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


def _check_values(peaks: Any) -> None:
    """Raise RefusedSample unless the largest values of a batch's label maps are classes."""
    # Another value would index out of the one-hot map, which on a GPU ends the process.
    try:
        check_labels(max(int(np.asarray(peaks.at(number)).max()) for number in range(len(peaks))))
    except WrongSample as error:
        raise RefusedSample(str(error)) from None
