import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collagan_dist.config.tree import Runtime
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed import deepspeed
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World
from tests.distributed import matrix
from tests.distributed.cases import ALL, OFTEN, with_references
from tests.models.peers import PEERS

SCENARIOS = ("nan_on_one_rank", "resumed", "converted", "uninterrupted", "gfc", "layouts", "peers")
# Where a compilation of DeepSpeed's shared-memory communication leaves its lock: in the configured folder, and below the default one.
LOCKS = ("deepspeed_shm_comm/lock", "py311_cpu/deepspeed_shm_comm/lock")


@pytest.fixture(scope="module")
def out(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases and scenarios, in one start on two ranks and one start on one, beside the locks of a killed compilation."""
    folder = tmp_path_factory.mktemp("engines")
    for lock in LOCKS:
        (folder / "extensions" / lock).parent.mkdir(parents=True)
        (folder / "extensions" / lock).touch()
    matrix.run_cases(with_references(OFTEN), shards.folder, folder, *SCENARIOS, steps=6)
    return folder


def outcome(out: Path, scenario: str, ranks: int) -> dict[str, Any]:
    return json.loads((out / f"{scenario}-{ranks}.json").read_text())


@pytest.mark.parametrize("case", OFTEN, ids=lambda case: case.name)
def test_a_way_to_train_is_its_reference(out, case):
    found = matrix.compare(out, case)
    if "reference" in found:
        assert found["loss"] <= matrix.within(case)
    assert not case.engine.endswith("-0") or found["bitwise"]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_all_ways_to_train_are_their_references(shards, tmp_path):
    matrix.run_cases(with_references(ALL), shards.folder, tmp_path)
    for case in ALL:
        found = matrix.compare(tmp_path, case)
        assert "reference" not in found or found["loss"] <= matrix.within(case), case.name


def test_the_page_is_what_was_found():
    found = json.loads(matrix.FOUND.read_text())
    assert list(found["cases"]) == [case.name for case in ALL]
    for case in ALL:
        result, reference = found["cases"][case.name], case.reference
        assert result.get("reference") == (reference.name if reference else None)
        assert "loss" not in result or result["loss"] <= matrix.within(case)
    assert matrix.PAGE.read_text() == matrix.render(found)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_nan_on_one_rank_skips_the_step_and_leaves_no_trace(out, ranks):
    """In both phases, the batch whole and in parts: the rank is named, and what follows is as if the step had not been."""
    scenarios = outcome(out, "nan_on_one_rank", ranks)
    assert len(scenarios) == 5
    bad = [["generator", [ranks - 1]], ["discriminators", [ranks - 1]]]
    assert all(scenario == [bad, True] for scenario in scenarios.values()), scenarios


@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_is_undisturbed(out, ranks):
    assert list(outcome(out, "resumed", ranks).values()) == [True] * 3


def test_row_30_engines_and_stages_continue_each_others_checkpoints(out):
    """DDP, then ZeRO 2, then any engine on two ranks or on one: loaded and saved bit by bit, and the losses are DDP's all along."""
    expected = outcome(out, "uninterrupted", 2)["ddp"]
    for ranks, within in ((2, matrix.ZERO), (1, matrix.WITHIN["fp32"])):
        for engine, (same, losses) in outcome(out, "converted", ranks).items():
            assert same, (engine, ranks)
            assert losses == pytest.approx(expected, rel=within), (engine, ranks)


@pytest.mark.parametrize("ranks", [1, 2])
def test_gfc_with_its_two_learners_of_discriminators(out, ranks):
    ddp, *stages = (np.array(values) for values in outcome(out, "gfc", ranks).values())
    assert len(stages) == 3 and all(np.abs(stage - ddp).max() < 1e-5 for stage in stages)


@pytest.mark.parametrize("name", PEERS)
def test_two_ranks_learn_as_one(out, name):
    """The losses of CE, SII and GFC agree up to batch statistics per rank; GFC has none, so its gradients are equal."""
    one, two = (outcome(out, "peers", ranks)[name] for ranks in (1, 2))
    assert [set(step) for step in one] == [set(step) for step in two]
    for step, other in zip(one, two, strict=True):
        assert other == pytest.approx(step, rel=1e-3 if name == "gfc" else 0.1)


def test_channels_last(out):
    ddp, *stages = outcome(out, "layouts", 2).values()
    assert len(stages) == 3 and all(stage == pytest.approx(ddp, rel=matrix.WITHIN["fp32"]) for stage in stages)


def test_it_says_nothing(out):
    assert (out / "together.log").read_text() == (out / "alone.log").read_text() == ""


def test_row_18_the_lock_of_a_killed_compilation_is_not_waited_for(out):
    """Nothing is compiled: beside the locks there is nothing, after two ranks and one have trained."""
    found = [
        path.relative_to(out / "extensions").as_posix() for path in (out / "extensions").rglob("*") if path.is_file()
    ]
    assert sorted(found) == sorted(LOCKS)


def test_a_missing_installation_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    engine = deepspeed.DeepSpeedEngine(Runtime(engine="deepspeed"), Group(World(), torch.device("cpu")))
    with pytest.raises(ConfigError, match=r"pip install 'collagan_dist\[deepspeed\]'"):
        engine.learner(torch.nn.Linear(1, 1), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_settings_that_would_differ_from_ours_are_off(precision):
    config = deepspeed.deepspeed_config(Runtime(engine="deepspeed", zero_stage=2, precision=precision), 100)
    assert config["gradient_clipping"] == 0 and config["gradient_accumulation_steps"] == 1
    assert not {"fp16", "bf16"} & set(config)  # its own scaling and its own low precision
    assert config.get("torch_autocast", {}).get("lower_precision_safe_modules", []) == []
    assert ("torch_autocast" in config) == (precision != "fp32")
