"""Picture grids: one row per sample, with columns for the input, each task's output, and the truth."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from collagan_dist import files
from collagan_dist.inference.sheet import draw_sheet
from collagan_dist.models.predictor import Blend, Predictor, TaskTensors
from collagan_dist.setup import Setup
from collagan_dist.tasks.inpainting import to_bytes
from collagan_dist.types import Batch

_GAP = 2  # pixels between pictures


def grid_columns(setup: Setup, outputs: TaskTensors, batch: Batch) -> dict[str, torch.Tensor]:
    """Return titles and (B, 3, H, W) images of a grid, from left to right: input, then each prediction beside its truth."""
    result = {"input": batch.input_B3HW}
    # Predicted points are shown on what the network saw, true ones on the whole picture.
    uncovered = replace(batch, input_B3HW=batch.image_B3HW)
    # What inpainting is to find; without a hole it equals the input.
    original = {"original": batch.image_B3HW} if batch.hole_B1HW.any() else {}
    for name, task in setup.tasks.items():
        title, picture = task.picture(outputs[name], batch)
        truth = original if title == "completed" else {f"true {title}": task.picture(task.target(batch), uncovered)[1]}
        result |= {title: picture, **truth}
    return result | original


def draw_grid(pictures: dict[str, torch.Tensor]) -> np.ndarray:
    """Return a (H, W, 3) uint8 picture with one row per sample."""
    # White gaps right of and below each picture.
    gaps = ((0, 0), (0, _GAP), (0, _GAP), (0, 0))
    tiles = [np.pad(to_bytes(p), gaps, constant_values=255) for p in pictures.values()]
    # (B, H, W, 3) to one column of rows.
    return np.concatenate(list(np.concatenate(tiles, axis=2)), axis=0)


def draw_titled_grid(pictures: dict[str, torch.Tensor]) -> np.ndarray:
    """Return a sheet of the pictures with one row per sample and a title above each column."""
    return draw_sheet(list(zip(*map(to_bytes, pictures.values()), strict=True)), list(pictures))


def encode_png(image_HW3: np.ndarray, profile: bytes | None = None) -> bytes:
    """Return (H, W, 3) or (H, W) uint8 as the bytes of a PNG file, with an ICC profile if one is given."""
    buffer = io.BytesIO()
    Image.fromarray(image_HW3).save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def write_grid(path: Path, setup: Setup, predictor: Predictor, batch: Batch, blend: Blend | None = None) -> list[str]:
    """Write a grid of the batch as PNG file; return the titles of its columns. `blend` changes the outputs first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs = predictor(batch)
    pictures = grid_columns(setup, blend(outputs, batch) if blend else outputs, batch)
    files.write_bytes(path, encode_png(draw_grid(pictures)))
    return list(pictures)
