import json
from pathlib import Path
from typing import Any

import pytest
import torch

from collagan_dist.config.tree import Runtime
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.deepspeed import DeepSpeedEngine
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.types import World
from tests.distributed import matrix
from tests.distributed.cases import ALL, OFTEN, Case, with_references

# On one rank too, which continues the checkpoints of two and learns the same.
ON_BOTH = ("converted", "exact", "peers")
# Where a compilation of DeepSpeed's shared-memory communication leaves its lock: in the configured folder, and below the default one.
LOCKS = ("deepspeed_shm_comm/lock", "py311_cpu/deepspeed_shm_comm/lock")


@pytest.fixture(scope="module")
def out(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases and scenarios, in one start on two ranks and one start on one, beside the locks of a killed compilation."""
    folder = tmp_path_factory.mktemp("engines")
    for lock in LOCKS:
        (folder / "extensions" / lock).parent.mkdir(parents=True)
        (folder / "extensions" / lock).touch()
    together = ("nan_on_one_rank", "resumed", "grown", "compiled", *ON_BOTH)
    assert matrix.run_cases(with_references(OFTEN), shards.folder, folder, together, ON_BOTH, steps=6) == ""
    return folder


def outcome(out: Path, scenario: str, ranks: int = 2) -> dict[str, Any]:
    return json.loads((out / f"{scenario}-{ranks}.json").read_text())


@pytest.mark.parametrize(
    ("name", "ranks", "expected"),
    [("plain", 1, Engine), ("ddp", 1, Engine), ("ddp", 2, DDPEngine), ("deepspeed", 1, DeepSpeedEngine), ("deepspeed", 2, DeepSpeedEngine)]
)  # fmt: skip
def test_engine_of_a_configuration(name, ranks, expected):
    group = Group(World(), torch.device("cpu"))
    group.world = World(size=ranks)  # without the other ranks' processes: to build an engine needs none
    assert type(build_engine(Runtime(engine=name), group)) is expected


@pytest.mark.parametrize("case", OFTEN, ids=lambda case: case.name)
def test_an_engine_equals_its_reference(out, case):
    found = matrix.compare(out, case)
    assert found["loss"] <= matrix.within(case)
    assert not case.engine.endswith("-0") or found["bitwise"]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_all_ways_to_train_equal_their_references(shards, tmp_path):
    matrix.run_cases(with_references(ALL), shards.folder, tmp_path)
    for case in ALL:
        assert matrix.compare(tmp_path, case).get("loss", 0) <= matrix.within(case), case.name


def test_the_page_shows_the_results():
    found = json.loads(matrix.FOUND.read_text())
    assert list(found["cases"]) == [case.name for case in ALL]
    for case in ALL:
        result, reference = found["cases"][case.name], case.reference
        assert result.get("reference") == (reference.name if reference else None)
        assert result.get("loss", 0) <= matrix.within(case)
    page = matrix.PAGE.read_text()
    assert page == matrix.render(page, found)


@pytest.mark.parametrize("way", ["together", "in four parts"])
def test_ddp_equals_one_rank_in_float64(out, way):
    """With batch statistics of all ranks; and where each rank and micro-batch has its own, of as many parts."""
    one, two = (outcome(out, "exact", ranks) for ranks in (1, 2))
    assert matrix.difference(one[way], two[way]) < 1e-9


def test_batch_statistics_of_parts_are_another_training(out):
    """What docs/architecture.md says it changes: a tenth of a percent and more within ten steps."""
    found = outcome(out, "exact")
    assert matrix.difference(found["together"], found["in four parts"]) > 1e-3


def test_a_nan_on_one_rank_skips_the_step_and_leaves_no_trace(out):
    """In both phases, with and without micro-batches: what follows is as if the step had not been."""
    scenarios = outcome(out, "nan_on_one_rank")
    expected = [[["generator", [1]], ["discriminators", [1]]], True]
    assert len(scenarios) == 5 and all(found == expected for found in scenarios.values()), scenarios


def test_resumed_equals_uninterrupted(out):
    assert list(outcome(out, "resumed").values()) == [True] * 3


def test_a_scale_that_grows_leaves_the_step_as_it_is(out):
    assert list(outcome(out, "grown").values()) == [[True, True]] * 4


def test_row_30_engines_and_stages_continue_each_others_checkpoints(out):
    """DDP, then ZeRO 2, then any engine on two ranks or on one: loaded and saved bit by bit, and the losses are DDP's all along."""
    expected = [step["loss/total"] for step in matrix.losses(out, Case("ddp"))[4:]]
    for ranks, within in ((2, matrix.ZERO), (1, matrix.WITHIN["fp32"])):
        for engine, (same, losses) in outcome(out, "converted", ranks).items():
            assert same, (engine, ranks)
            assert losses == pytest.approx(expected, rel=within), (engine, ranks)


def test_peers_learn_alike_on_every_engine_and_number_of_ranks(out):
    one, two = (outcome(out, "peers", ranks) for ranks in (1, 2))
    for name, steps in two.items():
        for step, reference in zip(steps, one[f"{name.split()[0]} ddp"], strict=True):
            assert step == pytest.approx(reference, rel=1e-3), name


def test_a_compiled_step_learns_the_same_on_two_ranks(out):
    ways = outcome(out, "compiled")
    assert matrix.difference(ways["eager"], ways["step"]) < matrix.WITHIN["compile"]


def test_row_18_the_lock_of_a_killed_compilation_is_not_waited_for(out):
    """Nothing is compiled: beside the locks there is nothing, after two ranks and one have trained."""
    extensions = out / "extensions"
    assert {path for path in extensions.rglob("*") if path.is_file()} == {extensions / lock for lock in LOCKS}
