"""ONNX parsers: conventions of input and output, and class maps that are wrong or do not fit."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.inference.parser_onnx import OnnxParser, read_class_map
from collagan_dist.types import CLASS_FLIP
from tests.conftest import ROOT
from tests.inference.onnx_networks import class_map, colour_network
from tests.inference.photographs import FACE, data_set, label_photographs, within

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
        # The network takes blue, green, red, so that the photographs' colours are reversed.
        for path in (tmp_path / "set/Img/img_celeba").iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path))[:, :, ::-1])
    network = colour_network(tmp_path / "n.onnx", **how)  # type: ignore[arg-type]
    class_map(network, text)
    for labels, true, (x, y) in zip(label_photographs(tmp_path / "set", network), shown, centres, strict=True):
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
    np.testing.assert_array_equal(
        label_photographs(tmp_path / "set", subject)[0], np.array(CLASS_FLIP, np.uint8)[inside]
    )
    lips = colour_network(tmp_path / "lips.onnx", outside=2)
    class_map(lips, text, teeth=[], upper_lip=[7, 8, 12], hair=[])
    expected = np.choose(inside, [0, 1, 2, 3, 4, 5, 6, 7, 7, 9, 0]).astype(np.uint8)
    np.testing.assert_array_equal(label_photographs(tmp_path / "set", lips)[0], expected)


WRONG_MAPS = {
    "unknown class": ("classes: {left_brow: [1]}\nsides: picture", r"map.yaml:1: .*no class 'left_brow'; did you mean left_eyebrow\?"),
    "index twice": ("classes: {face: [1, 2], hair: [2]}\nsides: picture", "each at most once"),
    "negative": ("classes: {face: [-1]}\nsides: picture", "greater than or equal to 0"),
    "no sides": ("classes: {face: [1]}", "sides is missing"),
    "unknown key": ("classes: {face: [1]}\nsides: picture\ninput: {sise: [8, 8]}", r"map.yaml:3: .*did you mean size\?"),
    "std 0": ("classes: {face: [1]}\nsides: picture\ninput: {std: [1, 0, 1]}", "must be above 0"),
    "range": ("classes: {face: [1]}\nsides: picture\ninput: {range: 2}", "input.range"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_MAPS)
def test_wrong_class_maps(tmp_path: Path, name: str) -> None:
    text, message = WRONG_MAPS[name]
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_class_map(tmp_path / "map.yaml")


WRONG_FITS = {
    "outside": ({}, "input: {size: [32, 32]}", {"hair": [11]}, r"names index 11, .* has 11 channels \(0..10"),
    "no size": ({}, "", {}, r"pictures of any size; set input.size"),
    "other size": ({"shape": (1, 32, 32)}, "input: {size: [64, 64]}", {}, r"is \[64, 64\], .* takes \[32, 32\]"),
    "layout": ({"shape": (1, 32, 32)}, "input: {layout: NHWC}", {}, "input.layout is NHWC"),
    "output": ({}, "input: {size: [32, 32]}\noutput: {name: parts}", {}, "output.name is 'parts', .* has scores"),
    "number": ({}, "input: {size: [32, 32]}\noutput: {name: 4}", {}, "output.name is 4"),
}


@pytest.mark.parametrize("name", WRONG_FITS)
def test_class_maps_that_do_not_fit_their_network(tmp_path: Path, name: str) -> None:
    how, text, classes, message = WRONG_FITS[name]
    network = colour_network(tmp_path / "n.onnx", **how)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        OnnxParser(network, class_map(network, text, **classes))(np.zeros((2, 32, 32, 3), np.uint8))  # type: ignore[arg-type]


def test_the_documented_class_map_is_valid(tmp_path: Path) -> None:
    block = (ROOT / "docs/label.md").read_text().split("```yaml")[1].split("```")[0]
    (tmp_path / "map.yaml").write_text(block)
    assert read_class_map(tmp_path / "map.yaml")[0].sides == "subject"
