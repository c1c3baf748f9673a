"""SPACE.yaml: what is wrong with one is said with its line before anything starts; what it stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collagan_dist import yaml_strict
from collagan_dist.config import TASK_WEIGHTS, load_config
from collagan_dist.errors import ConfigError
from collagan_dist.sweep.space import Space, read_space
from tests.conftest import ROOT

ADV = {"loss.weights.*.adv": {"simplex": 1.0}}
REC = {"loss.weights.inpainting.rec": {"loguniform": [30, 300]}}


def space(folder: Path, tree: dict[str, Any], model: str | None = None, sets: tuple[str, ...] = ()) -> Space:
    (folder / "space.yaml").write_text(yaml_strict.dump({"metric": "psnr_hole", "space": REC} | tree))
    return read_space(str(folder / "space.yaml"), load_config("stable", model, sets))


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"space": {"loss.weights.inpaintin.rec": {"uniform": [1, 2]}}}, "no such key in the configuration; did you mean loss.weights.inpainting.rec?"),
    ({"space": {"optim.generator.lr": {"loguniform": [1e-4, 1e-3], "uniform": [1, 2]}}}, "needs exactly one of"),
    ({"space": {"optim.generator.lr": {"logunifrom": [1e-4, 1e-3]}}}, "did you mean loguniform?"),
    ({"space": {"optim.generator.lr": {"uniform": [2, 1]}}}, "[2, 1] is no range"),
    ({"space": {"optim.generator.lr": {"loguniform": [0, 1]}}}, "both ends must be above 0"),
    ({"space": {"optim.generator.lr": {"choice": [1e-3]}}}, "at least 2 items"),
    ({"space": {"loss.weights.inpainting.adv": {"simplex": 1.0}}}, "a simplex needs at least two keys"),
    ({"space": REC | {"loss.weights.*.rec": {"uniform": [1, 2]}}}, "loss.weights.inpainting.rec: is searched twice"),
    ({"space": {"optim.generator.lr": {"uniform": [-1, 1]}}}, "optim.generator.lr: Input should be greater than 0"),
    ({"space": {"data.shards": {"choice": ["a", "b"]}}}, "cannot be searched"),
    ({"space": {"schedule.steps": {"choice": [10, 20]}}}, "cannot be searched"),
    ({"space": {"hole.kind": {"choice": ["block", "noise"]}}}, "cannot be searched"),
    ({"space": {"runtime.precision": {"choice": ["fp32", "bf16"]}}}, "cannot be searched"),
    ({"metric": "psnr_hol"}, "there is none of the name 'psnr_hol'"),
    ({"mode": "min"}, "of psnr_hole it is max"),
    ({"metric": ["psnr", "dice"]}, "for 2 take nsga2"),
    ({"search": "nsga2"}, "nsga2 is for several metrics"),
    ({"metric": ["psnr", "dice"], "search": "nsga2", "scheduler": "asha"}, "with nsga2 all go to the end"),
    ({"scheduler": "sync_halving", "search": "tpe"}, "tpe has nothing to learn from"),
    ({"scheduler": "pbt", "search": "tpe"}, "pbt changes its members by itself"),
    ({"scheduler": "pbt", "space": {"model.noise": {"uniform": [0, 0.5]}}}, "only loss.* and optim.* can"),
    ({"search": "grid"}, "a grid needs its values one by one"),
    ({"rungs": {"factor": 1}}, "greater than or equal to 2"),
    ({"space": {}}, "at least 1 item"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_said_with_its_place(tree: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        space(tmp_path, tree)
    assert words in str(error.value) and str(error.value).startswith(f"{tmp_path}/space.yaml:"), error.value


def test_a_metric_of_a_task_that_the_model_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metric dice is of segmentation, and the model has no such task"):
        space(tmp_path, {"metric": "dice"}, "M_id")


@pytest.mark.parametrize(("model", "tasks"), [("M_i", 1), ("M_id", 2), ("M*_isd", 3)])
def test_the_papers_weights_come_first(model: str, tasks: int, tmp_path: Path) -> None:
    """Section 4.2's for the number of tasks; then the base configuration's, where they differ."""
    tree = {
        "space": REC | {"loss.weights.*.adv": {"uniform": [0, 1]}, "optim.generator.lr": {"loguniform": [1e-4, 1e-3]}}
    }
    (paper,) = space(tmp_path, tree, model).starts()
    adv, rec = TASK_WEIGHTS["inpainting"][tasks - 1]
    assert (
        paper[0] == "paper"
        and paper[1]["loss.weights.inpainting.adv"] == adv
        and paper[1]["loss.weights.inpainting.rec"] == rec
    )
    assert paper[1]["optim.generator.lr"] == 2e-4
    both = space(tmp_path, tree, model, ("loss.weights.inpainting.rec=77",)).starts()
    assert [(role, values["loss.weights.inpainting.rec"]) for role, values in both] == [("paper", rec), ("base", 77)]


def test_a_star_is_every_task_of_the_model(tmp_path: Path) -> None:
    assert space(tmp_path, {"space": ADV}, "M_id").keys == ("loss.weights.inpainting.adv", "loss.weights.landmarks.adv")


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    tree = {
        "search": "grid",
        "space": {"loss.weights.inpainting.rec": {"choice": [30, 100]}, "loss.adv": {"choice": ["ns", "minmax"]}},
    }
    found = [tuple(values.values()) for values in space(tmp_path, tree).grid()]
    assert found == [(30, "ns"), (30, "minmax"), (100, "ns"), (100, "minmax")]


def test_a_trials_configuration_is_the_base_one_but_for_its_values(tmp_path: Path) -> None:
    one = space(tmp_path, {}).config({"loss.weights.inpainting.rec": 55.0})
    assert one == load_config("stable", sets=["loss.weights.inpainting.rec=55.0"])


@pytest.mark.parametrize("preset", ["demo", "stable", "paper"])
def test_the_space_of_the_project_is_for_every_preset(preset: str) -> None:
    assert len(read_space(str(ROOT / "cluster/sweep.yaml"), load_config(preset)).keys) == 6
