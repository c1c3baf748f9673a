"""Opening of face parsers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.errors import ConfigError
from collagan_dist.inference.export import export
from collagan_dist.inference.parsers import open_parser
from collagan_dist.training.loop import train
from collagan_dist.types import CLASSES, World
from tests.inference.onnx_networks import class_map
from tests.training.small import small


def test_models_that_do_not_segment_are_refused(shards: Manifest, tmp_path: Path) -> None:
    train(small(shards.folder, model__tasks=["landmarks"], schedule__steps=1), tmp_path / "run", World())
    with pytest.raises(
        ConfigError, match=r"is M_d, which does not segment; train one that does: collagan train parser"
    ):
        open_parser(tmp_path / "run")
    with pytest.raises(ConfigError, match="no such folder or file"):
        open_parser(tmp_path / "none")
    (tmp_path / "text.onnx").write_text("text")
    class_map(tmp_path / "text.onnx")
    with pytest.raises(ConfigError, match="onnxruntime cannot load it"):
        open_parser(tmp_path / "text.onnx")


def test_a_run_and_its_export_are_one_parser(parser_run: Path, tmp_path: Path) -> None:
    export(parser_run, tmp_path / "out")
    own, exported = open_parser(parser_run), open_parser(tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    scores = own(pixels)
    assert scores.shape == (3, len(CLASSES), 32, 32) and scores.dtype == np.float32
    np.testing.assert_array_equal(scores, exported(pixels))
    assert own.identity.sha256 == exported.identity.sha256
