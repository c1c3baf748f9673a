"""Small ONNX networks whose answers are known: each pixel belongs to the class whose colour is nearest."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from collagan_dist.types import CLASSES

# Far from each other, so that JPEG and rounding change nothing.
COLOURS = np.array(
    [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255),
     (128, 0, 64), (64, 128, 0), (0, 64, 128)], np.uint8,
)  # fmt: skip


def colour_network(
    path: Path, scale=(1.0, 1.0, 1.0), offset=(0.0, 0.0, 0.0), nhwc: bool = False, indices: bool = False,
    pool: int = 1, shape=("batch", "height", "width"), outside: int = 0,
) -> Path:  # fmt: skip
    """Undoes x·scale + offset (by input channel) to pixels of 0..1 and puts out 2 c·x - |c|² - 100 a colour c.

    `indices`: their arg-max; `pool`: pictures are averaged over so many pixels first; `outside` channels that never win.
    """
    colours = np.concatenate([COLOURS / 255.0, np.full((outside, 3), 9.0)])
    weights = (2 * colours / np.array(scale)).astype(np.float32)
    # 100 less everywhere, so that every score is negative, as logits may be.
    bias = (-100 - np.square(colours).sum(1) - (2 * colours / np.array(scale)) @ np.array(offset)).astype(np.float32)
    constants = [numpy_helper.from_array(weights[:, :, None, None], "w"), numpy_helper.from_array(bias, "b")]
    nodes, x = [], "x"
    if nhwc:
        nodes, x = [helper.make_node("Transpose", ["x"], ["nchw"], perm=[0, 3, 1, 2])], "nchw"
    if pool > 1:
        nodes.append(helper.make_node("AveragePool", [x], ["pooled"], kernel_shape=[pool] * 2, strides=[pool] * 2))
        x = "pooled"
    nodes.append(helper.make_node("Conv", [x, "w", "b"], ["scores"]))
    batch, height, width = shape
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)]
    if indices:
        nodes.append(helper.make_node("ArgMax", ["scores"], ["labels"], axis=1, keepdims=0))
        outputs.append(helper.make_tensor_value_info("labels", TensorProto.INT64, None))
    axes = [batch, height, width, 3] if nhwc else [batch, 3, height, width]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, axes)]
    graph = helper.make_graph(nodes, "colours", inputs, outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def class_map(network: Path, text: str = "", sides: str = "picture", **classes: list[int]) -> Path:
    """A class map beside a network: every class its own channel but for what is given, then `text`."""
    indices = {name: [i] for i, name in enumerate(CLASSES)} | classes
    listed = {name: i for name, i in indices.items() if i}
    path = network.with_suffix(".yaml")
    path.write_text(f"classes: {listed}\nsides: {sides}\n{text}\n")
    return path
