import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.plan import rehearsal
from collagan_dist.plan.rehearsal import rehearse
from collagan_dist.setup import training_order
from collagan_dist.types import World
from tests.training.small import small

LAST = World(rank=1023, size=1024, local_rank=7, local_size=8, node=127)


@pytest.mark.parametrize(
    "switches",
    [{"schedule__adv_from": 5}, {"runtime__sync_bn": True, "runtime__accumulate": 2}],
    ids=["discriminators start later", "sync_bn, 2 parts"],
)
def test_rank_1023_of_1024(shards, monkeypatch, switches):
    """Its own slice of the global batch, two real steps by DDP, and what it would wait for in each."""
    # The small data set has no batch of 1,024 ranks; its order has, which goes round.
    monkeypatch.setattr(rehearsal, "check_batch", lambda *_: None)
    parts = switches.get("runtime__accumulate", 1)
    share = 2 * parts
    config = small(shards.folder, schedule__batch=share * 1024, **switches)
    found = rehearse(config, LAST, shards)
    whole = training_order(config, shards).step(0, World())[0]
    assert found["positions of the first step"] == [1023 * share, 1024 * share - 1]
    assert found["first samples"] == whole[1023 * share :].tolist() and found["damaged samples"] == 0
    waits = found["collectives a step"]
    norms = waits.pop("batch normalization", 0)
    assert (norms > 20) == (parts == 2) and len(found["seconds"]["steps"]) == 2
    assert waits == {
        "the gradient of the discriminators": parts, "the gradient of the generator": parts, "the verdict on an update": 2,
        "the verdict on a step": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        (
            {},
            ConfigError,
            "4 samples cannot be shared evenly by 1024 ranks; no batch suits these ranks and this split: 1024 ranks need at least 2048",
        ),
        ({"schedule__batch": 2048}, DataError, "samples, one global batch needs 2048; .* start fewer ranks"),
        (
            {"schedule__batch": 2048, "runtime__accumulate": 2},
            ConfigError,
            "are 1 at a time, batch normalization needs 2",
        ),
        ({"runtime__engine": "deepspeed"}, ConfigError, "add --set runtime.engine=ddp"),
    ],
)
def test_what_a_start_would_refuse(shards, changes, kind, said):
    with pytest.raises(kind, match=said):
        rehearse(small(shards.folder, **changes), LAST, shards)


def test_the_engine_of_one_process_and_a_missing_split(shards):
    two = World(rank=1, size=2, local_rank=1, local_size=2)
    with pytest.raises(ConfigError, match="plain trains on one rank only, this run has 2"):
        rehearse(small(shards.folder, runtime__engine="plain"), two, shards)
    with pytest.raises(DataError, match="there is no split 'nope'"):
        rehearse(small(shards.folder, evaluate__every=5, evaluate__split="nope"), two, shards)
