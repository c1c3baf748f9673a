import numpy as np
import torch

from collagan_dist import types


def test_mirroring_exchanges_left_and_right_and_nothing_else():
    for names, flip in ((types.CLASSES, types.CLASS_FLIP), (types.LANDMARKS, types.LANDMARK_FLIP)):
        for name, other in zip(names, (names[i] for i in flip), strict=True):
            swap = {"left": "right", "right": "left"}.get(name.split("_")[0])
            assert other == (name if swap is None else f"{swap}_{name.split('_')[1]}")


def test_a_batch_is_split_in_order_and_absent_annotations_stay_absent():
    x = torch.arange(6.0).reshape(6, 1, 1, 1)
    batch = types.Batch(x, x + 1, x > 2, None, torch.zeros(6, 5, 2), np.arange(6), np.zeros(6), torch.zeros(6, 2))
    parts = batch.split(3)
    assert [part.ids_B.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(torch.cat([part.input_B3HW for part in parts]), batch.input_B3HW)
    assert all(part.label_BHW is None and part.points_BK2.shape == (2, 5, 2) for part in parts)


def test_outputs_are_never_narrower_than_float32():
    kinds = dict.fromkeys((torch.float16, torch.bfloat16, torch.float32), torch.float32)
    kinds[torch.float64] = torch.float64
    assert {kind: types.as_float32(torch.zeros(1, dtype=kind)).dtype for kind in kinds} == kinds


def test_pixels_become_images_from_minus_one_to_one():
    pixels = torch.tensor([[[[0, 127, 255]]]], dtype=torch.uint8)
    image = types.image_from_pixels(pixels)
    assert image.shape == (1, 3, 1, 1) and image.dtype == torch.float32
    np.testing.assert_allclose(image.flatten(), [-1, 127 / 127.5 - 1, 1], atol=1e-6)
