import numpy as np
import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.inference.export import export
from collagan_dist.inference.parsers import open_parser
from collagan_dist.types import CLASSES
from tests.inference.onnx_networks import class_map


def test_models_that_do_not_segment_are_refused(landmarks_run, tmp_path):
    (tmp_path / "text.onnx").write_text("text")
    class_map(tmp_path / "text.onnx")
    for model, message in (
        (landmarks_run, "is M_d, which does not segment; train one that does: collagan train parser"),
        (tmp_path / "none", "no such folder or file"),
        (tmp_path / "text.onnx", "onnxruntime cannot load it"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_parser(model)


def test_a_run_and_its_export_are_one_parser(parser_run, tmp_path):
    export(parser_run, tmp_path / "out")
    own, exported = open_parser(parser_run), open_parser(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    scores = own(pixels)
    assert scores.shape == (3, len(CLASSES), 32, 32) and scores.dtype == np.float32
    np.testing.assert_array_equal(scores, exported(pixels))
    assert own.identity.sha256 == exported.identity.sha256
