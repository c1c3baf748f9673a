import copy
import json
import subprocess
import sys

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from collagan_dist import files
from collagan_dist.config.load import load_config
from collagan_dist.errors import CheckpointError, ConfigError, NumericError
from collagan_dist.inference import network_files
from collagan_dist.inference.export import export
from collagan_dist.inference.score import score
from collagan_dist.models.registry import build_generator
from collagan_dist.runs.model_folder import read_inference_parameters
from collagan_dist.tasks import build_tasks
from collagan_dist.types import World
from tests.faults.test_packing import private_mounts
from tests.training import small


def load_exported(folder):
    weights = read_inference_parameters(folder)
    config = load_config(str(folder / "config.yaml"))
    generator = build_generator(config, build_tasks(config))
    weights.load_generator(generator)
    return generator


def test_the_folder_holds_the_averaged_generator_and_its_hashes(trained_run, tmp_path):
    export(trained_run, tmp_path / "models/out")
    out = tmp_path / "models/out"
    assert {p.name for p in out.iterdir()} == {"README.md", "config.yaml", "generator.safetensors", "manifest.json"}
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["step"] == 7 and manifest["model"] == "M*_isd"
    assert manifest["sha256"] == {
        n: files.sha256(out / n) for n in ("README.md", "config.yaml", "generator.safetensors")
    }
    assert load_config(str(out / "config.yaml")).data.shards is None
    generator = load_exported(out)
    checkpoint = small.weights(trained_run, 7)
    assert all(torch.equal(value, checkpoint[f"ema/{name}"]) for name, value in generator.state_dict().items())
    assert any(not torch.equal(v, checkpoint[f"generator/{name}"]) for name, v in generator.state_dict().items())


def test_it_scores_as_the_run_does(trained_run, shards, tmp_path):
    export(trained_run, tmp_path / "out")
    ((exported, path),) = score(tmp_path / "out", World(), shards=str(shards.folder))
    assert path == tmp_path / "out/evaluation/test-block.json" and path.is_file()
    assert exported == score(trained_run, World())[0][0]
    with pytest.raises(ConfigError, match=r"data.shards is not set: give the folder of shards by --data"):
        score(tmp_path / "out", World())


@pytest.mark.parametrize("name", ["generator.safetensors", "config.yaml"])
def test_damage_is_named(trained_run, tmp_path, name):
    out = tmp_path / "out"
    export(trained_run, out)
    content = bytearray((out / name).read_bytes())
    content[-2] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name} is damaged or edited"):
        load_exported(out)


def test_a_folder_that_is_not_empty_is_refused(trained_run, tmp_path):
    (tmp_path / "empty").mkdir()
    export(trained_run, tmp_path / "empty")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="is not empty; give another --out"):
        export(trained_run, tmp_path / "empty")
    with pytest.raises(ConfigError, match="is no run folder"):
        export(tmp_path, tmp_path / "other")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_onnx_file_is_the_generator(trained_run, drawn, tmp_path):
    """Every task's output, at batch sizes other than the exported one."""
    out = tmp_path / "out"
    export(trained_run, out, onnx=True)
    generator = load_exported(out).eval()
    session = onnxruntime.InferenceSession(out / "model.onnx")
    assert [o.name for o in session.get_outputs()] == ["inpainting", "segmentation", "landmarks"]
    assert (out / "model.yaml").is_file()
    photo = cv2.resize(cv2.imread(str(drawn / "Img/img_celeba/000001.jpg")), (32, 32)).transpose(2, 0, 1) / 127.5 - 1
    for batch in (1, 3):
        x = np.stack([np.roll(photo, i, axis=1) for i in range(batch)]).astype(np.float32)
        with torch.inference_mode():
            expected = generator(torch.from_numpy(x), torch.zeros(batch, 2, dtype=torch.int32)).numpy()
        found = np.concatenate(session.run(None, {"x": x}), axis=1)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_without_segmentation_there_is_no_class_map(landmarks_run, tmp_path):
    export(landmarks_run, tmp_path / "out", onnx=True)
    assert (tmp_path / "out/model.onnx").is_file() and not (tmp_path / "out/model.yaml").exists()


def test_a_file_that_computes_something_else_leaves_nothing(trained_run, tmp_path, monkeypatch):
    """A network that is written with another number in it than it is compared with."""
    write = network_files._write_program

    def wrong(path, network, config):
        other = copy.deepcopy(network)
        with torch.no_grad():
            list(other.parameters())[-1].add_(0.1)
        return write(path, other, config)

    monkeypatch.setattr(network_files, "_write_program", wrong)
    with pytest.raises(
        NumericError, match=r"model.pt2: \w+ differs by .* from torch in torch .*; nothing was exported"
    ):
        export(trained_run, tmp_path / "out", program=True)
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named(trained_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is missing; pip install 'collagan_dist\[onnx\]'"):
        export(trained_run, tmp_path / "out", onnx=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", ["", "--onnx", "--torch"])
def test_a_full_disk_is_named_where_it_is(trained_run, tmp_path, options):
    """Not the file that is copied there; nothing of the export stays."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"{sys.executable} -m collagan_dist export {trained_run} --out {disk}/model {options}"
    size = 64 if not options else 4 * sum(path.stat().st_size for path in trained_run.rglob("ema.safetensors")) // 3000
    script = f"mount -t tmpfs -o size={size}k tmpfs {disk} && {command}; echo code $?; ls -A {disk}"
    result = subprocess.run(private_mounts(script), capture_output=True, text=True)
    assert result.stdout == "code 3\n" and "Traceback" not in result.stderr, result.stdout + result.stderr
    assert f"{disk}/model: no space left for it, " in result.stderr and "are free there; make room" in result.stderr
