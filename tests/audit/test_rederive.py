import shutil

import pytest
import torch

from collagan_dist.audit.ranks import how_to_train
from collagan_dist.audit.record import RunRecord, Stretch
from collagan_dist.audit.rederive import Rederivation, nudge
from collagan_dist.config.load import config_to_dict
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.audit.conftest import AUDITED
from tests.models.peers import PEERS, peer, train_parser
from tests.training.small import small


def test_a_nudge_moves_each_weight_to_a_neighbouring_float(trained):
    found = RunRecord(trained).load(6)
    moved = nudge(found, 0)
    assert moved.tensors["optimizer"] is not None and moved.state == found.state
    for file, content in found.tensors.items():
        for name, tensor in content.items():
            other = moved.tensors[file][name]
            if file in ("generator", "discriminators") and tensor.is_floating_point():
                steps = (other.view(torch.int32) - tensor.view(torch.int32)).abs()
                assert steps[tensor != 0].eq(1).all(), name
            else:
                assert torch.equal(tensor, other)
    up = moved.tensors["generator"]["output.weight"] > found.tensors["generator"]["output.weight"]
    assert 0.3 < up.float().mean() < 0.7


@pytest.mark.full
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_equal_bit_for_bit(findings, shards, tmp_path, name):
    if name == "gfc":
        train(train_parser(shards), tmp_path / "parser", World())
    config = peer(shards, name, parser=tmp_path / "parser" if name == "gfc" else None, **AUDITED)
    train(config, tmp_path / "run", World())
    found = [one for start in (0, 3) for one in findings(tmp_path / "run", start, start + 3)]
    assert [one.verdict for one in found] == ["equal", "equal"]


def test_a_nudged_beginning_is_the_beginning(shards, tmp_path):
    """Of a run that starts from other weights: also its output layer, whose bias would else begin at the targets' mean."""
    model = {"widths": {"generator": 4, "discriminator": 4}}
    train(small(shards.folder, model={**model, "output_bias": "zero"}, schedule__steps=1), tmp_path / "source", World())
    config = small(shards.folder, **AUDITED, model={**model, "init": str(tmp_path / "source")}, runtime={"threads": 1})
    train(config, tmp_path / "run", World())
    state = RunRecord(tmp_path / "run").load(3).state
    again = Rederivation(Stretch(0, 1), how_to_train(config_to_dict(config), 1, 1), None, state)
    plain, twin = again.train(tmp_path / "plain"), again.train(tmp_path / "twin", nudged=0)
    for name, tensor in plain.end.tensors["generator"].items():
        torch.testing.assert_close(twin.end.tensors["generator"][name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    assert any(name == "output.bias" for name in plain.end.tensors["generator"])


@pytest.mark.full  # threads that share too few cores wait for one another
def test_a_deterministic_run_is_audited_on_the_threads_that_are_given(findings, shards, tmp_path):
    train(small(shards.folder, **AUDITED, deterministic=True, runtime={"threads": 1}), tmp_path / "run", World())
    for threads, verdict in ((None, "equal"), (2, "within")):
        (one,) = findings(tmp_path / "run", 3, 6, threads=threads)
        assert one.verdict == verdict and one.how == f"1 rank, {threads or 1} thread{'s' * (threads == 2)}"


@pytest.mark.full
def test_initial_weights_are_needed_at_the_beginning_alone(findings, shards, trained, tmp_path):
    first = shutil.copytree(trained, tmp_path / "first")
    model = {"widths": {"generator": 4, "discriminator": 4}, "init": str(first)}
    train(small(shards.folder, **AUDITED, model=model, seed=4), tmp_path / "run", World())
    assert [findings(tmp_path / "run", start, start + 3)[0].verdict for start in (0, 3)] == ["equal", "equal"]
    first.rename(tmp_path / "gone")
    found = [findings(tmp_path / "run", start, start + 3)[0].verdict for start in (0, 3)]
    assert found == ["not comparable", "equal"]
