"""model.init: what two models share computes the same at the start, and a run remembers what it started from."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from collagan_dist.distributed.group import Group
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.inference.export import export
from collagan_dist.models.initial_weights import read_initial_weights
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks
from collagan_dist.runs.model_folder import read_inference_parameters
from collagan_dist.tasks import build_tasks
from collagan_dist.training import loop
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.conftest import collagan
from tests.training.one_rank import setup
from tests.training.small import equal, small, weights

WIDTHS = {"generator": 4, "discriminator": 4}


@pytest.fixture(scope="module")
def source(shards, tmp_path_factory) -> Path:
    """A model of two tasks after some steps."""
    folder = tmp_path_factory.mktemp("init") / "source"
    train(small(shards.folder, model={"tasks": ["segmentation", "inpainting"], "widths": WIDTHS}), folder, World())
    return folder


def started(shards, source: Path, **changes) -> tuple[Networks, str]:
    """The networks of a run that starts from `source`, and what it says of them."""
    part = setup(shards, **changes)
    part.config.model.__dict__["init"] = str(source)
    networks = build_networks(part.config, part.engine, part.tasks)
    initial = read_initial_weights(part.config, networks.generator, networks.discriminators)
    initial.load_into(networks)
    return networks, str(initial)


def outputs(generator, tasks, images) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        found = generator.eval()(images, None)
    return dict(zip(tasks, found.split([task.channels for task in tasks.values()], dim=1), strict=True))


@pytest.mark.parametrize("tasks", [["inpainting"], ["landmarks", "inpainting", "segmentation"]])
def test_tasks_that_both_have_give_the_same_outputs(shards, source, tasks):
    networks, said = started(shards, source, model={"tasks": tasks, "widths": WIDTHS})
    other = setup(shards, model={"tasks": ["segmentation", "inpainting"], "widths": WIDTHS})
    reference = build_networks(other.config, other.engine, other.tasks).generator
    read_inference_parameters(source).load_generator(reference)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    theirs = outputs(reference, other.tasks, images)
    own_tasks = build_tasks(small(shards.folder, model={"tasks": tasks, "widths": WIDTHS}))
    for generator in (networks.generator, networks.ema):
        own = outputs(generator, own_tasks, images)
        assert all(torch.equal(own[task], theirs[task]) for task in own.keys() & theirs.keys())
    assert ("output channels of landmarks" in said) == ("of.landmarks" in said) == ("landmarks" in tasks)
    discriminators = weights(source, 7)
    for name, value in networks.discriminators.state_dict().items():
        if "landmarks" not in name:
            assert torch.equal(value, discriminators[f"discriminators/{name}"])


def test_larger_pictures_take_the_layers_of_the_same_scale(shards, source):
    networks, said = started(shards, source, model={"widths": WIDTHS}, data__image_size=64)
    own, theirs = networks.generator.state_dict(), read_inference_parameters(source).generator
    # 32 pixels have 5 levels and 4 decoder layers, 64 have one more: at 1x1.
    for layer in (1, 2, 3):
        assert torch.equal(own[f"decoder.{layer + 1}.0.weight"], theirs[f"decoder.{layer}.0.weight"])
    assert torch.equal(own["encoder.3.0.weight"], theirs["encoder.3.0.weight"])
    assert "encoder.5 (" in said and "decoder.0 (" in said and "decoder.3" not in said


def test_smaller_pictures_take_the_layers_of_the_same_scale(shards, tmp_path):
    train(small(shards.folder, data__image_size=64, schedule__steps=1), tmp_path / "large", World())
    networks, said = started(shards, tmp_path / "large", model={"widths": WIDTHS})
    own, theirs = networks.generator.state_dict(), read_inference_parameters(tmp_path / "large").generator
    for layer in (2, 3):
        assert torch.equal(own[f"decoder.{layer - 1}.0.weight"], theirs[f"decoder.{layer}.0.weight"])
    # The first one has no skip connection beside it, so another width than the same scale has in the larger network.
    assert re.findall(r"decoder\.\d", said.partition("these begin anew")[2]) == ["decoder.0"]


def test_a_run_remembers_what_it_started_from(shards, source, tmp_path, monkeypatch):
    """Its first checkpoint is written, and it goes on, when that model is gone; but from no other one."""
    model = Path(shutil.copytree(source, tmp_path / "model"))
    settings = {"model": {"widths": WIDTHS, "init": str(model)}}
    train(small(shards.folder, **settings), tmp_path / "whole", World())
    read = loop.read_initial_weights

    def read_and_remove(*args):
        found = read(*args)
        shutil.rmtree(model)
        return found

    monkeypatch.setattr(loop, "read_initial_weights", read_and_remove)
    train(small(shards.folder, **settings, schedule__steps=3), tmp_path / "parts", World())
    train(small(shards.folder, **settings), tmp_path / "parts", World())
    assert equal(weights(tmp_path / "whole", 7), weights(tmp_path / "parts", 7))
    train(small(shards.folder, model={"widths": WIDTHS}), tmp_path / "plain", World())
    assert not equal(weights(tmp_path / "whole", 7), weights(tmp_path / "plain", 7))
    with pytest.raises(CheckpointError, match=r"model\.init: \w{64} -> None"):
        train(small(shards.folder, model={"widths": WIDTHS}), tmp_path / "whole", World())


def test_a_model_with_the_same_generator_and_no_discriminators_is_another(shards, source, tmp_path):
    """As the export of a run: its discriminators begin anew."""
    export(source, tmp_path / "exported")
    run, widths = tmp_path / "run", {"widths": WIDTHS}
    train(small(shards.folder, model=widths | {"init": str(source)}), run, World(), StartOptions(stop_at=2))
    with pytest.raises(CheckpointError, match=r"model\.init: \w{64} -> \w{64}"):
        train(small(shards.folder, model=widths | {"init": str(tmp_path / "exported")}), run, World())
    shutil.copytree(source, tmp_path / "copy")
    train(small(shards.folder, model=widths | {"init": str(tmp_path / "copy")}), run, World(), StartOptions(stop_at=4))


def test_a_dry_run_reads_the_model(shards, source, tmp_path):
    """slurm/train.sh starts with one."""
    words = ["--set", "data.image_size=32", "--set", f"model.widths={json.dumps(WIDTHS)}", "--dry-run"]
    words = ["train", "demo", "--data", str(shards.folder), "--out", str(tmp_path / "run"), *words]
    done = collagan(*words, "--init", source, check=False)
    assert done.returncode == 0 and f"# model.init: {source}, step 7: " in done.stdout, done.stderr
    assert "output channels of landmarks" in done.stdout
    for wrong in (tmp_path / "nowhere", source / "config.yaml"):
        done = collagan(*words, "--init", wrong, check=False)
        assert done.returncode == 2 and f"{wrong}: is no run folder (no config.yaml)" in done.stderr


def test_ranks_that_read_other_weights_end(shards, source, tmp_path, monkeypatch):
    """As where the model is trained further while they start."""
    monkeypatch.setattr(Group, "all_gather", lambda group, value: [value, "step 8, sha256 0"])
    with pytest.raises(
        CheckpointError, match=r"rank 0: step 7, sha256 \w{64}; rank 1: step 8, sha256 0; give an exported"
    ):
        train(small(shards.folder, model={"widths": WIDTHS, "init": str(source)}), tmp_path / "run", World())
    assert not (tmp_path / "run").exists()


def test_what_all_ranks_find_wrong_is_one_error(shards, tmp_path, monkeypatch):
    """With its own exit code, not that of ranks that differ."""
    monkeypatch.setattr(Group, "all_gather", lambda group, value: [value, value])
    config = small(shards.folder, model={"widths": WIDTHS, "init": str(tmp_path / "nowhere")})
    with pytest.raises(ConfigError, match="nowhere: is no run folder") as found:
        train(config, tmp_path / "run", World())
    assert found.value.raised_on_all_ranks


def test_a_model_of_which_nothing_fits_leaves_no_folder(shards, source, tmp_path):
    other = {"widths": {"generator": 5, "discriminator": 4}, "init": str(source)}
    with pytest.raises(ConfigError, match=r"no kernel of .* widths 4 and 4, image_size 32.* widths 5 and 4"):
        train(small(shards.folder, model=other), tmp_path / "run", World())
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError, match="is no run folder"):
            train(small(shards.folder, model={"init": str(missing)}), tmp_path / "run", World())
    assert not (tmp_path / "run").exists()
