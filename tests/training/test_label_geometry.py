"""Label maps land where the network saw what they say: painted photographs through networks whose answers are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from collagan_dist.commands.main import main
from collagan_dist.types import CLASS_FLIP, CLASSES
from tests.training.onnx_networks import COLOURS, class_map, colour_network

HEIGHT, WIDTH, BLOCK = 150, 190, 7
# The larger extent of the landmarks; the side of face and margin square (3.2 and 3.2 x 1.3 times it), in whole pixels.
FACE, MARGIN = (24, 77), (32, 133)


def pattern(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH) random classes in blocks."""
    rows, columns = -(-HEIGHT // BLOCK), -(-WIDTH // BLOCK)
    blocks = np.random.default_rng(seed).integers(0, len(CLASSES), (rows, columns), dtype=np.uint8)
    return np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))[:HEIGHT, :WIDTH]


def data_set(root: Path, extent: int, centres: list[tuple[int, int]]) -> list[np.ndarray]:
    """Painted photographs in CelebA's layout, landmarks of one extent around each centre; the classes they show."""
    shown = [pattern(i) for i in range(len(centres))]
    for folder in ("Img/img_celeba", "Anno", "Eval"):
        (root / folder).mkdir(parents=True)
    rows = []
    for number, (labels, (x, y)) in enumerate(zip(shown, centres, strict=True)):
        cv2.imwrite(str(root / f"Img/img_celeba/{number}.png"), COLOURS[labels][:, :, ::-1])
        e = extent // 2
        points = (x - e, y - 4, x + e, y - 4, x, y, x - e + 3, y + 4, x + e - 3, y + 4)
        rows.append(f"{number}.png " + " ".join(map(str, points)))
    (root / "Anno/list_landmarks_celeba.txt").write_text("\n".join([str(len(rows)), "names", *rows]) + "\n")
    (root / "Eval/list_eval_partition.txt").write_text("".join(f"{i}.png 0\n" for i in range(len(rows))))
    return shown


def within(side: int, x: int, y: int) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the square of an odd side around (x, y)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (abs(rows - y) <= side // 2) & (abs(columns - x) <= side // 2)


def label(root: Path, network: Path, *options: str) -> list[np.ndarray]:
    out = network.with_suffix(".maps")
    with pytest.raises(SystemExit) as stop:
        main(["label", str(root), "--model", str(network), "--out", str(out), *options])
    assert not stop.value.code
    paths = sorted(out.glob("*.png"), key=lambda p: int(p.stem))
    return [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in paths]


CENTRES = [(95, 75), (20, 30), (180, 140), (95, 5), (3, 75)]  # inside, and over each border of the photograph


@pytest.mark.parametrize(("views", "size"), [("face", FACE), ("margin", MARGIN)])
def test_the_square_is_labelled_to_the_pixel_and_the_rest_is_background(
    tmp_path: Path, views: str, size: tuple[int, int]
) -> None:
    extent, side = size
    centres = [(min(max(x, extent // 2), WIDTH - 1 - extent // 2), min(max(y, 4), HEIGHT - 5)) for x, y in CENTRES]
    shown = data_set(tmp_path / "set", extent, centres)
    network = colour_network(tmp_path / "n.onnx")
    class_map(network, f"input: {{views: {views}, size: [{side}, {side}]}}")
    found = label(tmp_path / "set", network, "--batch", "2")
    assert len(found) == len(shown)
    for labels, true, (x, y) in zip(found, shown, centres, strict=True):
        np.testing.assert_array_equal(labels, np.where(within(side, x, y), true, 0))


def test_both_views_put_the_face_square_over_the_margin_square(tmp_path: Path) -> None:
    """Seen at the face square's own size, that is exact inside; around it, where blocks are away from their borders."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    network = colour_network(tmp_path / "n.onnx", shape=(1, FACE[1], FACE[1]))
    class_map(network)
    (labels,) = label(tmp_path / "set", network)
    face, margin = within(FACE[1], 95, 75), within(99, 95, 75)
    np.testing.assert_array_equal(labels[face], true[face])
    window = np.ones((5, 5), np.uint8)
    ring = margin & ~face & (cv2.erode(true, window) == cv2.dilate(true, window))
    assert ring.sum() > 100
    np.testing.assert_array_equal(labels[ring], true[ring])
    assert not labels[~within(103, 95, 75)].any()


def test_scores_are_resized_not_labels(tmp_path: Path) -> None:
    """A network that answers in a seventh of the resolution, against torch's bilinear resize."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    network = colour_network(tmp_path / "n.onnx", pool=7)
    class_map(network, f"input: {{views: face, size: [{FACE[1]}, {FACE[1]}]}}")
    (labels,) = label(tmp_path / "set", network)
    square = np.s_[75 - 38 : 75 + 39, 95 - 38 : 95 + 39]
    pixels = torch.from_numpy(COLOURS[true[square]] / 255.0).permute(2, 0, 1)[None]
    low = F.avg_pool2d(pixels, 7)
    colours = torch.from_numpy(COLOURS / 255.0)
    scores = 2 * torch.einsum("cr,brhw->bchw", colours, low) - colours.square().sum(1)[None, :, None, None]
    smooth = F.interpolate(scores, size=(77, 77), mode="bilinear", align_corners=False).argmax(1)[0].numpy()
    blocky = F.interpolate(scores, size=(77, 77), mode="nearest").argmax(1)[0].numpy()
    assert (labels[square] == smooth).mean() > 0.999
    assert (blocky == smooth).mean() < 0.95


CONVENTIONS = {
    "bgr": ({"bgr": True}, "input: {views: face, size: [77, 77], channels: bgr}"),
    "255": ({"scale": (255, 255, 255)}, "input: {views: face, size: [77, 77], range: 255}"),
    "mean and std": (
        {"scale": (2.0, 4.0, 5.0), "offset": (-1.0, -1.0, -1.5)},
        "input: {views: face, size: [77, 77], mean: [0.5, 0.25, 0.3], std: [0.5, 0.25, 0.2]}",
    ),
    "NHWC": ({"nhwc": True}, "input: {views: face, size: [77, 77], layout: NHWC}"),
    "not square": ({}, "input: {views: face, size: [154, 77]}"),
    "indices by name": ({"indices": True}, "input: {views: face, size: [77, 77]}\noutput: {name: labels}"),
    "indices by number": ({"indices": True}, "input: {views: face, size: [77, 77]}\noutput: {name: 1}"),
    "fixed batch and size": ({"shape": (3, 77, 77)}, "input: {views: face}"),
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_of_networks(tmp_path: Path, name: str) -> None:
    how, text = CONVENTIONS[name]
    centres = [(95, 75), (20, 30), (150, 100), (60, 60)]
    shown = data_set(tmp_path / "set", FACE[0], centres)
    if how.pop("bgr", False):
        # A network of blue, green, red: the colours of the photographs reversed are what it knows.
        for path in (tmp_path / "set/Img/img_celeba").iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path))[:, :, ::-1])
    network = colour_network(tmp_path / "n.onnx", **how)  # type: ignore[arg-type]
    class_map(network, text)
    for labels, true, (x, y) in zip(label(tmp_path / "set", network), shown, centres, strict=True):
        expected = np.where(within(FACE[1], x, y), true, 0)
        if name == "not square":
            assert (labels == expected).mean() > 0.98  # stretched and shrunk again
        else:
            np.testing.assert_array_equal(labels, expected)


def test_sides_of_the_picture_and_of_the_subject(tmp_path: Path) -> None:
    """The subject's left eye is the right one of the picture; what is not listed is background; lists are unions."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    text = "input: {views: face, size: [77, 77]}"
    inside = np.where(within(FACE[1], 95, 75), true, 0)
    subject = colour_network(tmp_path / "subject.onnx")
    class_map(subject, text, sides="subject")
    np.testing.assert_array_equal(label(tmp_path / "set", subject)[0], np.array(CLASS_FLIP, np.uint8)[inside])
    lips = colour_network(tmp_path / "lips.onnx", outside=2)
    class_map(lips, text, teeth=[], upper_lip=[7, 8, 12], hair=[])
    expected = np.choose(inside, [0, 1, 2, 3, 4, 5, 6, 7, 7, 9, 0]).astype(np.uint8)
    np.testing.assert_array_equal(label(tmp_path / "set", lips)[0], expected)
