"""A trained run's predictions for the first test samples, as pictures for the figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from collagan_dist.data.shards.quick_check import open_shards
from collagan_dist.inference.completion_job import OVERLAY_OPACITY
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.models.predictor import Predictor, generator_input
from collagan_dist.models.registry import load_predictor
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.run_status import changed_evaluation_settings
from collagan_dist.runs.model_folder import read_config
from collagan_dist.setup import Setup, build_setup
from collagan_dist.tasks.inpainting import composite, to_bytes
from collagan_dist.tasks.segmentation import colour, read_labels
from collagan_dist.types import Batch, World


@dataclass(frozen=True)
class Features:
    """The last layer that all tasks share, of one sample: `maps_CHW` after ReLU, at half the picture's size.

    `inside` and `outside` are the mean activations in the hole and around it.
    """

    maps_CHW: np.ndarray
    inside: float
    outside: float


class SamplePredictions:
    """A run's predictions for the first `count` test samples, with one kind of hole.

    Pictures are (N, H, W, 3) uint8 with N <= count. Packing has shuffled the split, so the first samples are any.
    """

    def __init__(self, run: PlannedRun, data: str, hole: str, count: int) -> None:
        self._run, self._data, self._hole, self._count = run, data, hole, count

    @property
    def original(self) -> np.ndarray:
        return to_bytes(self._batch.image_B3HW)

    @property
    def masked(self) -> np.ndarray:
        return to_bytes(self._batch.input_B3HW)

    @property
    def raw(self) -> np.ndarray:
        """The generator's output G^i(x, z), unchanged."""
        return to_bytes(self._outputs["inpainting"])

    @property
    def composite(self) -> np.ndarray:
        """Eq. 5: the output in the hole, the picture around it."""
        return to_bytes(composite(self._outputs["inpainting"], self._batch))

    @property
    def blended(self) -> np.ndarray:
        # The same function as for the blended numbers of Table 1.
        outputs = BLENDS["poisson"](self._outputs, self._batch)
        return to_bytes(composite(outputs["inpainting"], self._batch))

    @property
    def overlay(self) -> np.ndarray:
        """The predicted labels over the completed picture."""
        done = composite(self._outputs["inpainting"], self._batch).float()
        return to_bytes(
            done * (1 - OVERLAY_OPACITY) + colour(read_labels(self._outputs["segmentation"])) * OVERLAY_OPACITY
        )

    def features(self, number: int) -> Features:
        """Return the shared features of sample `number`."""
        predictor, batch = self._predictor, self._batch
        generator = predictor.generator
        width = predictor.config.model.widths.generator
        # Batch normalization must use its running statistics here, whatever the predictor uses.
        was_training = generator.training
        generator.eval()
        with torch.inference_mode(), predictor.engine.autocast():
            seen = generator_input(predictor.config, batch.input_B3HW, batch.hole_B1HW)
            # The second half of the channels comes through the skip connection: it shows the input, not what was learned.
            maps = generator.features(seen, batch.keys_B2)[number, :width].float()  # type: ignore[operator]
        generator.train(was_training)
        # At the maps' size, a position is hole if more than half of its pixels are.
        hole = torch.nn.functional.avg_pool2d(batch.hole_B1HW[number, 0][None, None].float(), 2)[0, 0] > 0.5
        inside, outside = (float(maps[:, where].mean()) if where.any() else 0.0 for where in (hole, ~hole))
        return Features(maps.cpu().numpy(), inside, outside)

    @cached_property
    def _setup(self) -> Setup:
        config = read_config(self._run.folder, self._data, changed_evaluation_settings(self._run))
        # One process and no group: figures are drawn by the process that writes the tables.
        return build_setup(config, World(), open_shards(config))

    @cached_property
    def _predictor(self) -> Predictor:
        return load_predictor(self._run.folder, self._setup.config, self._setup.engine, self._setup.tasks)[0]

    @cached_property
    def _batch(self) -> Batch:
        return self._setup.first_batch("test", self._setup.view(training=False, hole=self._hole), self._count)

    # Computed once and on demand: a figure uses several of the pictures, and none of some runs.
    @cached_property
    def _outputs(self) -> dict[str, torch.Tensor]:
        return self._predictor(self._batch)
