from pathlib import Path

import pytest

from collagan_dist.config.load import config_to_dict, load_config, model_label
from collagan_dist.config.models import CONTROLS
from collagan_dist.config.tree import Evaluate
from collagan_dist.errors import ConfigError
from collagan_dist.reproduce.plan import ReproduceOptions, chains, make_plan, not_applied
from collagan_dist.types import POSITIONS

CELEBA = 162_770


def plan(**changes):
    options = ReproduceOptions("stable", "packed", Path("out"), **changes)
    return {run.name: run for run in make_plan(options, CELEBA, 19_962)}


def test_tables_2_and_3_need_six_models_with_block_holes():
    runs = plan(tables=(2, 3), figures=())
    assert set(runs) == {"M_s", "M_is", "M_isd", "M*_isd", "M_d", "M_id", "M*_is", "M*_id"}
    for name, run in runs.items():
        assert (model_label(run.config.model), run.config.hole.kind, run.holes) == (name, "block", {"block": False})
        assert run.steps == run.config.schedule.steps == 50_866  # ceil(20 * 162770 / 64)
        # At full length nothing else differs from what `collagan train stable --model` learns.
        features = f"evaluate.features={Path('out/runs/M_s').absolute()}"
        evaluate = ["evaluate.augment=true", features]
        assert run.config == load_config("stable", name, ["schedule.steps=50866", *evaluate], "packed")
    assert next(iter(runs)) == "M_s"  # the others are evaluated in its features
    assert plan(tables=(1,), figures=())["M_i"].config.evaluate.features is None
    mine = plan(tables=(2,), figures=(), sets=("evaluate.features=mine",))
    assert {run.config.evaluate.features for run in mine.values()} == {"mine"}


def test_everything_needs_the_papers_twelve_runs_three_controls_and_the_parser():
    runs = plan()
    twelve = {"M_i", "M_s", "M_d", "M_id", "M_is", "M_isd", "M*_isd", "M*_isd-noise", "CE", "CE-noise", "SII", "GFC"}
    assert set(runs) == twelve | {"parser", *CONTROLS}
    kinds = {name: run.config.hole.kind for name, run in runs.items()}
    assert {n for n, kind in kinds.items() if kind == "noise"} == {"M*_isd-noise", "CE-noise"}
    assert {n for n, kind in kinds.items() if kind == "none"} == {"SII", "parser"}
    parser = str(Path("out/runs/parser").absolute())
    assert (runs["GFC"].needs, runs["GFC"].config.model.gfc.parser) == ("parser", parser)
    scored = {name for name, run in runs.items() if {hole for hole, both in run.holes.items() if both} == {*POSITIONS}}
    assert scored == {*twelve, *CONTROLS} - {"M_s", "M_d", "M*_isd-noise", "CE-noise"}
    assert runs["M*_isd"].holes["block"] is False and not runs["parser"].holes
    assert [[run.name for run in chain] for chain in chains(runs.values()) if len(chain) > 1] == [["parser", "GFC"]]


def test_the_parser_is_the_preset_parser_or_a_given_one():
    run = plan(tables=(), figures=(5,))["parser"]
    assert run.config == load_config("parser", None, [f"schedule.steps={run.steps}", "evaluate.augment=true"], "packed")
    runs = plan(tables=(), figures=(5,), sets=("model.gfc.parser=runs/mine",))
    assert "parser" not in runs and runs["GFC"].needs is None


def test_figures_need_their_models():
    assert set(plan(tables=(), figures=(1, 3))) == {"M_i", "M*_isd"}
    assert set(plan(tables=(), figures=(4,))) == {"M_i", "M_id", "M_is", "M_isd", "M*_isd"}
    assert set(plan(tables=(), figures=(6,))) == {"M_i", "M_isd"} and not plan(tables=(), figures=(6,))["M_i"].holes


def test_scale_shortens_all_that_is_counted_in_steps():
    config = plan(scale=0.01, sets=("schedule.adv_from=20000",), tables=(3,), figures=())["M_d"].config
    assert (config.schedule.steps, config.schedule.adv_from) == (509, 200)
    assert (config.checkpoint.every, config.log.every, config.log.grid_every) == (10, 1, 5)
    share = plan(scale=0.01, sets=("schedule.adv_from=0.4",), tables=(3,), figures=())["M_d"].config.schedule
    assert (share.adv_from, share.adversarial_start(share.steps)) == (0.4, 203)
    assert config.evaluate.search.steps == 10 and (config.evaluate.samples, config.evaluate.baselines) == (200, 16)
    few = plan(scale=1e-9, tables=(3,), figures=(), sets=("evaluate.samples=500",))["M_d"].config.evaluate
    assert (few.samples, few.search.steps) == (16, 1)
    few = plan(scale=1e-9, tables=(3,), figures=(), sets=("evaluate.samples=5", "evaluate.baselines=0"))[
        "M_d"
    ].config.evaluate
    assert (few.samples, few.baselines) == (5, 0)
    assert plan(scale=2.0, tables=(3,), figures=())["M_d"].config.evaluate == Evaluate(augment=True)
    assert plan(scale=1e-9, tables=(3,), figures=())["M_d"].steps == 1
    assert plan(scale=0.01, tables=(3,), figures=())["M_d"].config.schedule.adv_from == 0


def test_seeds():
    runs = plan(seeds=3, tables=(3,), figures=(), sets=("seed=7",))
    assert set(runs) == {"M_d", "M_id", "M*_id"} | {
        f"{m}{s}" for m in ("M_isd", "M*_isd") for s in ("", "-seed1", "-seed2")
    }
    seeds = {name: run.config.seed for name, run in runs.items() if run.base == "M_isd"}
    assert seeds == {"M_isd": 7, "M_isd-seed1": 8, "M_isd-seed2": 9}
    one, other = config_to_dict(runs["M_isd"].config), config_to_dict(runs["M_isd-seed2"].config)
    assert {k for k in one if one[k] != other[k]} == {"seed"}


def test_chosen_models_have_all_seeds_and_nothing_else_is_trained():
    runs = plan(seeds=2, tables=(1, 3), figures=(), models=("M_d", "M*_i"))
    assert list(runs) == ["M*_i", "M*_i-seed1", "M_d", "M_d-seed1"]
    assert set(runs["M*_i"].holes) == {*POSITIONS} and runs["M_d"].holes == {"block": False}
    with pytest.raises(ConfigError, match=r"--models M_s,X: in none of the requested tables; those have CE, SII"):
        plan(tables=(1, 3), models=("M_s", "M_d", "X"))


def test_settings_reach_the_runs_that_have_them():
    runs = plan(tables=(3,), figures=(), sets=("loss.weights.inpainting.rec=50", "schedule.batch=32"))
    assert runs["M_id"].config.loss.weights["inpainting"].rec == 50
    assert "inpainting" not in runs["M_d"].config.loss.weights
    assert {run.config.schedule.batch for run in runs.values()} == {32} and runs["M_d"].steps == 101_732


def test_peers_keep_what_is_published_of_them():
    lr = "optim.generator.lr=1e-3"
    sets = ("loss.adv=minmax", "loss.weights.inpainting.rec=50", lr, "data.image_size=64", "model.output_bias=mean",
            "hole.fill=noise", "model.widths.generator=16", "data.augment.flip=0.25", "schedule.batch=32",
            "evaluate.search.steps=7")  # fmt: skip
    runs, former = plan(tables=(1,), figures=(), sets=sets), plan(tables=(1,), figures=())
    ours = runs["M_i"].config
    assert (ours.loss.adv, ours.optim.generator.lr, ours.model.output_bias) == ("minmax", 1e-3, "mean")
    for name in ("CE", "SII", "GFC"):
        now, then = runs[name].config, former[name].config
        assert (now.loss, now.optim, now.model.output_bias) == (then.loss, then.optim, "zero")
        assert now.model.widths.generator == 16 and now.data.augment.flip == 0.25
        assert now.schedule.batch == 32 and now.evaluate.search.steps == 7
    smaller = plan(tables=(1,), figures=(), sets=("data.image_size=32",))
    for planned, sizes in ((runs, [64, 64, 64, 64]), (smaller, [32, 64, 32, 32])):
        assert [planned[name].config.data.image_size for name in ("CE", "SII", "GFC", "M_i")] == sizes
    assert (runs["CE"].config.hole.fill, runs["GFC"].config.hole.fill) == ("mean", "noise")
    missed = not_applied(ReproduceOptions("stable", "packed", Path("out"), (1,), (), sets=sets), runs.values())
    assert missed[lr] == ["CE", "SII", "GFC"] and "schedule.batch=32" not in missed
    assert missed["data.image_size=64"] == ["SII"] and missed["hole.fill=noise"] == ["CE"]
    assert missed["loss.weights.inpainting.rec=50"] == ["CE", "SII", "parser", "GFC"]


@pytest.mark.parametrize("item", ["hole.kind=noise", "model.tasks=[inpainting]", "model.concentrated=false"])
def test_keys_that_distinguish_the_runs_cannot_be_set(item):
    with pytest.raises(ConfigError, match="reproduce sets it itself"):
        plan(sets=(item,))
