"""Which configuration computes on other ranks what the run's ranks did, and that it does."""

from pathlib import Path

import pytest

from collagan_dist.audit.ranks import NotComparable, how_to_train
from collagan_dist.audit.record import Stretch
from collagan_dist.audit.rederive import Rederivation
from collagan_dist.config.load import config_to_dict
from tests.audit.conftest import AUDITED
from tests.training.small import small


def stored(**runtime: object) -> dict:
    return config_to_dict(small(Path("shards"), **AUDITED, runtime={"threads": 1, **runtime}))


@pytest.mark.parametrize(
    ("runtime", "recorded", "ranks", "expected", "statistics"),
    [
        ({}, 1, 1, {}, True),
        ({}, 4, 4, {}, True),
        ({}, 1, 2, {"sync_bn": True}, True),
        ({}, 4, 1, {"accumulate": 4}, False),
        ({}, 4, 2, {"accumulate": 2}, False),
        ({"accumulate": 2}, 2, 1, {"accumulate": 4}, False),
        ({"accumulate": 2}, 1, 2, {"accumulate": 1}, False),
        ({"sync_bn": True}, 4, 1, {}, True),
        ({"engine": "deepspeed", "zero_stage": 2}, 4, 2, {"engine": "ddp", "zero_stage": 0, "accumulate": 2}, False),
        ({"engine": "plain"}, 1, 2, {"engine": "ddp", "sync_bn": True}, True),
    ],
)
def test_batch_normalization_sees_the_same_samples_together(runtime, recorded, ranks, expected, statistics):
    tree = stored(**runtime)
    how = how_to_train(tree, recorded, ranks)
    free = {"straggler", "fail_on_straggler"}
    changed = {k: v for k, v in how.tree["runtime"].items() if k not in free and v != tree["runtime"][k]}
    assert (
        changed == expected and how.statistics == statistics and bool(how.changed) == bool(expected.keys() - {"engine"})
    )


@pytest.mark.parametrize(("runtime", "recorded", "ranks"), [({}, 2, 4), ({"sync_bn": True, "accumulate": 2}, 2, 1)])
def test_what_no_configuration_computes_is_refused(runtime, recorded, ranks):
    with pytest.raises(NotComparable, match="parts of a batch apart"):
        how_to_train(stored(**runtime), recorded, ranks)


def run_of_two_ranks(shards, folder: Path) -> Path:
    config = config_to_dict(small(shards.folder, **AUDITED, runtime={"threads": 1}))
    state = {"skipped_batches": [], "machine": None, "init": None, "parser": None}
    made = Rederivation(Stretch(0, 3), how_to_train(config, 2, 2), None, state).train(folder)
    assert made.end.state["machine"]["ranks"] == 2
    return folder / "run"


def test_a_run_of_two_ranks_is_audited_on_one(findings, shards, tmp_path):
    """Two ranks with batch normalization of their own are one rank with two parts."""
    (one,) = findings(run_of_two_ranks(shards, tmp_path), 0, 3)
    assert one.verdict == "within" and one.how == "1 rank, 1 thread" and one.share < 0.01
    assert {"accumulate: 1 -> 2", "ranks: 2 -> 1"} <= set(one.reasons)
    assert any(text.startswith("running statistics") for text in one.notes)


@pytest.mark.full  # three starts of torchrun
def test_a_run_of_one_rank_is_audited_on_two_and_one_of_two_is_equal_on_two(findings, run, shards, tmp_path):
    (one,) = findings(run, 3, 6, ranks=(2,))
    assert one.verdict == "within" and {"sync_bn: false -> true", "ranks: 1 -> 2"} <= set(one.reasons)
    (one,) = findings(run_of_two_ranks(shards, tmp_path / "two"), 0, 3, ranks=(2,))
    assert one.verdict == "equal" and one.how == "2 ranks, 1 thread"
