import sys
from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch

from collagan_dist.config.load import load_config
from collagan_dist.errors import NumericError
from collagan_dist.inference import network_files
from collagan_dist.inference.model_card import NetworkFile
from collagan_dist.inference.network_files import SplitOutputs, write_network_files
from collagan_dist.models.registry import build_generator
from collagan_dist.runs.model_folder import read_config, read_inference_parameters
from collagan_dist.tasks import build_tasks


def test_both_files_compute_what_the_network_does(trained_run, tmp_path):
    """Also at batch sizes that nothing was compared at."""
    config, weights = read_config(trained_run), read_inference_parameters(trained_run)
    found = write_network_files(tmp_path, weights, config, onnx=True, program=True)
    assert [one.name for one in found] == ["model.onnx", "model.pt2"]
    assert all(0 <= one.difference < 1e-5 for one in found)
    assert [one.compared_by for one in found] == [
        f"onnxruntime {onnxruntime.__version__}",
        f"torch {torch.__version__}",
    ]
    tasks = build_tasks(config)
    generator = build_generator(config, tasks)
    weights.load_generator(generator)
    network = SplitOutputs(generator, [task.channels for task in tasks.values()]).eval()
    x = torch.rand((5, 3, 32, 32)) * 2 - 1
    with (tmp_path / "model.pt2").open("rb") as file, torch.inference_mode():
        outputs = torch.export.load(file).module()(x)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(outputs, network(x), strict=True))


def test_without_onnxruntime_onnx_itself_compares(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (found,) = write_network_files(
        tmp_path, read_inference_parameters(trained_run), read_config(trained_run), onnx=True, program=False
    )
    assert (
        found.compared_by.startswith("onnx ") and found.compared_by.endswith("'s reference") and found.difference < 1e-5
    )


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_differences_are_refused(trained_run, tmp_path, wrong):
    config = load_config(str(trained_run / "config.yaml"))
    tasks = build_tasks(config)
    network = SplitOutputs(build_generator(config, tasks), [task.channels for task in tasks.values()]).eval()

    def run(x):
        with torch.inference_mode():
            outputs = [output.numpy().copy() for output in network(torch.from_numpy(x))]
        outputs[1][-1, 0, 0, 0] += wrong
        return outputs

    with pytest.raises(NumericError, match=r"model\.onnx: segmentation differs by"):
        network_files._compared(tmp_path / "model.onnx", network, config, run, "it")
    same = network_files._compared(tmp_path / "model.onnx", network, config, partial(_same, network), "it")
    assert same == NetworkFile("model.onnx", "it", 0.0)


def _same(network, x):
    with torch.inference_mode():
        return [output.numpy() for output in network(torch.from_numpy(x))]


def test_nothing_is_written_unasked(trained_run, tmp_path):
    assert (
        write_network_files(tmp_path, read_inference_parameters(trained_run), read_config(trained_run), False, False)
        == []
    )
    assert not list(tmp_path.iterdir())
