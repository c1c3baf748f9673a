import cv2
import numpy as np
import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.inference.parser_onnx import OnnxParser, read_class_map
from collagan_dist.types import CLASS_FLIP
from tests.conftest import ROOT
from tests.inference.onnx_networks import class_map, colour_network
from tests.inference.photographs import FACE, data_set, label_photographs, within

VIEW = "input: {views: face, size: [77, 77]"  # without its closing brace


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ({}, VIEW + ", channels: bgr}"),
        ({"scale": (255, 255, 255)}, VIEW + ", range: 255}"),
        ({"scale": (2, 4, 5), "offset": (-1, -1, -1.5)}, VIEW + ", mean: [0.5, 0.25, 0.3], std: [0.5, 0.25, 0.2]}"),
        ({"nhwc": True}, VIEW + ", layout: NHWC}"),
        ({}, "input: {views: face, size: [154, 77]}"),
        ({"indices": True}, VIEW + "}\noutput: {name: labels}"),
        ({"indices": True}, VIEW + "}\noutput: {name: 1}"),
        ({"shape": (3, 77, 77)}, "input: {views: face}"),
    ],
)
def test_conventions_of_networks(tmp_path, network, text):
    centres = [(95, 75), (20, 30), (150, 100), (60, 60)]
    shown = data_set(tmp_path / "set", FACE[0], centres)
    if "bgr" in text:
        # The network takes blue, green, red, so that the photographs' colours are reversed.
        for path in (tmp_path / "set/Img/img_celeba").iterdir():
            cv2.imwrite(str(path), cv2.imread(str(path))[:, :, ::-1])
    path = colour_network(tmp_path / "n.onnx", **network)
    class_map(path, text)
    for labels, true, (x, y) in zip(label_photographs(tmp_path / "set", path), shown, centres, strict=True):
        expected = np.where(within(FACE[1], x, y), true, 0)
        # Pictures that are not square are stretched and shrunk again.
        assert (labels == expected).mean() >= (0.98 if "154" in text else 1)


def test_sides_of_the_picture_and_of_the_subject(tmp_path):
    """The subject's left eye is the right one of the picture; what is not listed is background; lists are unions."""
    (true,) = data_set(tmp_path / "set", FACE[0], [(95, 75)])
    text = "input: {views: face, size: [77, 77]}"
    inside = np.where(within(FACE[1], 95, 75), true, 0)
    subject = colour_network(tmp_path / "subject.onnx")
    class_map(subject, text, sides="subject")
    np.testing.assert_array_equal(label_photographs(tmp_path / "set", subject)[0], np.array(CLASS_FLIP)[inside])
    lips = colour_network(tmp_path / "lips.onnx", outside=2)
    class_map(lips, text, teeth=[], upper_lip=[7, 8, 12], hair=[])
    expected = np.choose(inside, [0, 1, 2, 3, 4, 5, 6, 7, 7, 9, 0]).astype(np.uint8)
    np.testing.assert_array_equal(label_photographs(tmp_path / "set", lips)[0], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: {left_brow: [1]}", r"map.yaml:1: .*no class 'left_brow'; did you mean left_eyebrow\?"),
        ("classes: {face: [1, 2], hair: [2]}", "each at most once"),
        ("classes: {face: [-1]}", "needs at least 0"),
        ("classes: {face: [4611686018427387904]}", "needs less than 65536"),
        ("classes: {face: [1]}\ninput: {sise: [8, 8]}", r"map.yaml:2: .*did you mean size\?"),
        ("classes: {face: [1]}\ninput: {std: [1, 0, 1]}", "must be above 0"),
        ("classes: {face: [1]}\ninput: {range: 2}", "input.range"),
        ("classes: {face: [1]}", "sides is missing"),
    ],
)
def test_wrong_class_maps(tmp_path, text, message):
    sides = "" if message == "sides is missing" else "\nsides: picture"
    (tmp_path / "map.yaml").write_text(text + sides)
    with pytest.raises(ConfigError, match=message):
        read_class_map(tmp_path / "map.yaml")


@pytest.mark.parametrize(
    ("network", "text", "message"),
    [
        ({}, "input: {size: [32, 32]}", r"names index 11, .* has 11 channels \(0..10"),
        ({}, "", r"pictures of any size; set input.size"),
        ({"shape": (1, 32, 32)}, "input: {size: [64, 64]}", r"is \[64, 64\], .* takes \[32, 32\]"),
        ({"shape": (1, 32, 32)}, "input: {layout: NHWC}", "input.layout is NHWC"),
        ({}, "input: {size: [32, 32]}\noutput: {name: parts}", "output.name is 'parts', .* has scores"),
        ({}, "input: {size: [32, 32]}\noutput: {name: 4}", "output.name is 4"),
    ],
)
def test_class_maps_that_do_not_fit_their_network(tmp_path, network, text, message):
    path = colour_network(tmp_path / "n.onnx", **network)
    with pytest.raises(ConfigError, match=message):
        OnnxParser(path, class_map(path, text, hair=[11]))(np.zeros((2, 32, 32, 3), np.uint8))


def test_the_documented_class_map_is_valid(tmp_path):
    block = (ROOT / "docs/label.md").read_text().split("```yaml")[1].split("```")[0]
    (tmp_path / "map.yaml").write_text(block)
    assert read_class_map(tmp_path / "map.yaml")[0].sides == "subject"
