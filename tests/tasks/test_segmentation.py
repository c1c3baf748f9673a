import numpy as np
import pytest
import torch

from collagan_dist.config.tree import Config
from collagan_dist.tasks import build_tasks
from collagan_dist.tasks.segmentation import read_labels
from collagan_dist.types import CLASSES
from tests.tasks.batches import batch


def test_dice_counted_by_hand():
    b = batch()
    task = build_tasks(Config())["segmentation"]
    torch.manual_seed(1)
    output = torch.randn(4, len(CLASSES), 32, 32)
    values, _ = task.summarize(task.measure(output, b))
    found, truth, hole = read_labels(output).numpy(), b.label_BHW.numpy(), b.hole_B1HW[:, 0].numpy()

    def dice(f: np.ndarray, t: np.ndarray, c: int) -> float:
        return 2 * ((f == c) & (t == c)).sum() / ((f == c).sum() + (t == c).sum())

    for c in range(1, 10):
        name = CLASSES[c]
        assert values["dice"][name] == pytest.approx(dice(found, truth, c))
        assert values["dice_hole"][name] == pytest.approx(dice(found[hole], truth[hole], c))
        assert values["dice_per_image"][name] == pytest.approx(np.mean([dice(found[i], truth[i], c) for i in range(4)]))
    assert values["dice"]["mean"] == pytest.approx(np.mean([values["dice"][CLASSES[c]] for c in range(1, 10)]))


def test_dice_of_a_class_that_nobody_has_is_left_out():
    b = batch()
    b.label_BHW[b.label_BHW == 8] = 0
    task = build_tasks(Config())["segmentation"]
    values, _ = task.summarize(task.measure(task.target(b), b))
    assert "teeth" not in values["dice"] and values["dice"]["mean"] == 1.0
    assert set(values["dice"]) == {*CLASSES[1:8], CLASSES[9], "mean"}
