import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.inference.onnx_networks import COLOURS, class_map, colour_network
from tests.inference.photographs import FACE, HEIGHT, MARGIN, WIDTH, data_set, label_photographs, within

CENTRES = [(95, 75), (20, 30), (180, 140), (95, 5), (3, 75)]  # inside, and over each border of the photograph


@pytest.mark.parametrize(("views", "size"), [("face", FACE), ("margin", MARGIN)])
def test_the_square_is_labelled_to_the_pixel_and_the_rest_is_background(tmp_path, views, size):
    extent, side = size
    centres = [(min(max(x, extent // 2), WIDTH - 1 - extent // 2), min(max(y, 4), HEIGHT - 5)) for x, y in CENTRES]
    shown = data_set(tmp_path / "set", extent, centres)
    network = colour_network(tmp_path / "n.onnx")
    class_map(network, f"input: {{views: {views}, size: [{side}, {side}]}}")
    found = label_photographs(tmp_path / "set", network, "--batch", "2")
    for labels, true, (x, y) in zip(found, shown, centres, strict=True):
        np.testing.assert_array_equal(labels, np.where(within(side, x, y), true, 0))


def test_both_views_put_the_face_square_over_the_margin_square(tmp_path):
    """Seen at the face square's own size, that is exact inside; around it, where blocks are away from their borders."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    network = colour_network(tmp_path / "n.onnx", shape=(1, FACE[1], FACE[1]))
    class_map(network)
    (labels,) = label_photographs(tmp_path / "set", network)
    face, margin = within(FACE[1], 95, 75), within(99, 95, 75)
    np.testing.assert_array_equal(labels[face], true[face])
    window = np.ones((5, 5), np.uint8)
    ring = margin & ~face & (cv2.erode(true, window) == cv2.dilate(true, window))
    assert ring.sum() > 100
    np.testing.assert_array_equal(labels[ring], true[ring])
    assert not labels[~within(103, 95, 75)].any()


def test_scores_are_resized_not_labels(tmp_path):
    """A network with a seventh of the input's resolution, against torch's bilinear resize."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    network = colour_network(tmp_path / "n.onnx", pool=7)
    class_map(network, f"input: {{views: face, size: [{FACE[1]}, {FACE[1]}]}}")
    (labels,) = label_photographs(tmp_path / "set", network)
    square = np.s_[75 - 38 : 75 + 39, 95 - 38 : 95 + 39]
    pixels = torch.from_numpy(COLOURS[true[square]] / 255.0).permute(2, 0, 1)[None]
    low = F.avg_pool2d(pixels, 7)
    colours = torch.from_numpy(COLOURS / 255.0)
    scores = 2 * torch.einsum("cr,brhw->bchw", colours, low) - colours.square().sum(1)[None, :, None, None]
    smooth = F.interpolate(scores, size=(77, 77), mode="bilinear", align_corners=False).argmax(1)[0].numpy()
    blocky = F.interpolate(scores, size=(77, 77), mode="nearest").argmax(1)[0].numpy()
    assert (labels[square] == smooth).mean() > 0.999
    assert (blocky == smooth).mean() < 0.95
