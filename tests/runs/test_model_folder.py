import json
import resource
import shutil
from pathlib import Path

import pytest

from collagan_dist.config.load import load_config, to_yaml
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.models.registry import load_predictor
from collagan_dist.runs.model_folder import is_exported, read_config, read_inference_parameters
from collagan_dist.runs.run_folder import run_identity
from collagan_dist.tasks import build_tasks
from tests.models.peers import start
from tests.training.small import equal, small, weights


def test_a_runs_shards_are_found_from_any_folder(shards, run):
    """config.yaml has them as they were given, relative to another folder; data.json knows where that is."""
    (run / "config.yaml").write_text(to_yaml(small(Path("somewhere/packed"))))
    assert read_config(run).data.shards == str(shards.folder.resolve())
    assert read_config(run, "elsewhere").data.shards == "elsewhere"
    (run / "data.json").unlink()
    assert read_config(run).data.shards == "somewhere/packed"


def test_only_how_a_model_is_evaluated_can_be_set(run, tmp_path):
    config = read_config(run, sets=["evaluate.samples=3", "runtime.threads=2", "data.threads=1"])
    assert config.evaluate.samples == 3 and config.runtime.threads == 2
    for item in ("model.tasks=[inpainting]", "data.image_size=64", "optim.ema=0.5"):
        with pytest.raises(ConfigError, match=f"--set {item.split('=')[0]}"):
            read_config(run, sets=[item])
    with pytest.raises(ConfigError, match="is no run folder"):
        read_config(tmp_path)


def test_the_averaged_generator_is_used(run):
    """Where the run has one."""
    assert not is_exported(run)
    found, stored = read_inference_parameters(run), weights(run, 9)
    assert found.step == 9 and found.file == run / "checkpoints/step-00000009/ema.safetensors"
    for file, tensors in (("ema/", found.generator), ("discriminators/", found.discriminators)):
        assert equal(tensors, {k.removeprefix(file): v for k, v in stored.items() if k.startswith(file)})


def test_a_run_without_checkpoint_says_how_to_train_it(run):
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint yet; train it first: collagan train .*config.yaml"):
        read_inference_parameters(run)


def test_a_configuration_larger_than_its_weights_takes_no_memory(run):
    """The networks are compared before they are built: 1024 channels at 512 pixels would take gigabytes."""
    huge = small(Path("packed"), data__image_size=512, model={"widths": {"generator": 1024, "discriminator": 1024}})
    (run / "config.yaml").write_text(to_yaml(huge))
    config = read_config(run)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"ema.safetensors is of another network.*its config.yaml says which"):
        load_predictor(run, config, start(small(Path("packed")))[1].generator_learner.engine, build_tasks(config))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
    with pytest.raises(ConfigError, match=r"model.widths.generator"):
        small(Path("packed"), model={"widths": {"generator": (1 << 24) + 1}})


def test_a_run_without_a_network_is_refused(run):
    """Its manifest does not name it, so that every hash is right."""
    newest = run / "checkpoints/step-00000009"
    manifest = json.loads((newest / "manifest.json").read_bytes())
    del manifest["sha256"]["discriminators.safetensors"]
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"step-00000009: is incomplete: discriminators.safetensors is missing"):
        read_inference_parameters(run)


def test_the_identity_of_a_run_knows_its_parsers_weights(run, shards, tmp_path):
    """By their hash: the folder may be moved, what it holds may not change."""
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    configs = [load_config("stable", "GFC", [f"model.gfc.parser={folder}"]) for folder in (run, moved)]
    first, second = (run_identity(config, shards.hash) for config in configs)
    assert first == second and len(first["model"]["gfc"]["parser"]) == 64
    shutil.rmtree(moved / "checkpoints/step-00000009")
    assert run_identity(configs[1], shards.hash) != first
