import re

import pytest

from collagan_dist.config.load import load_config
from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.errors import ConfigError
from collagan_dist.sweep.space import read_space
from collagan_dist.sweep.space_spec import METRICS
from tests.conftest import ROOT
from tests.sweep.spaces import LR, space


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("optim.generater.lr: {uniform: [0.1, 1]}", "no such key .*did you mean optim.generator.lr?"),
        ("loss.weights: {choice: [1, 2]}", "no such key"),  # a section
        ("'*.lr': {uniform: [0.1, 1]}", "no such key"),  # one name, not several
        ("loss.adv.form: {choice: [ns, minmax]}", "no such key"),  # below a value
        ("optim.generator.lr: {unifrom: [0.1, 1]}", "unknown key .*did you mean uniform?"),
        ("optim.generator.lr: {uniform: [0.1, 1], choice: [0.1, 1]}", "exactly one of uniform, loguniform"),
        ("optim.generator.lr: {uniform: null, choice: [0.1, 1]}", "exactly one of"),
        ("optim.generator.lr: {uniform: null}", "exactly one of"),
        ("loss.weights.inpainting.rec: {choice: null}", "exactly one of"),
        ("optim.generator.lr: {}", "exactly one of"),
        ("optim.generator.lr: 0.1", "needs keys and values, is 0.1"),
        ("optim.generator.lr: {uniform: [1, 0.1]}", r"\[1, 0.1\] is no range: the first value must be below"),
        ("optim.generator.lr: {uniform: [0.1, 0.1]}", "is no range"),
        ("optim.generator.lr: {uniform: [0.1]}", "uniform.1 is missing"),
        ("optim.generator.lr: {uniform: [0.1, 0.2, 0.3]}", "needs at most 2 items, has 3"),
        ("optim.generator.lr: {uniform: [low, high]}", "needs a number, is 'low'"),
        ("optim.generator.lr: {loguniform: [0, 0.1]}", "loguniform: both ends must be above 0"),
        ("schedule.batch: {integers: [4, 8.5]}", "needs an integer"),
        ("optim.generator.lr: {choice: [0.1]}", "needs at least 2 items, has 1"),
        ("loss.weights.inpainting.rec: {choice: [100, 50, 100.0]}", "choice: 100.0 is given twice"),
        ("loss.weights.*.adv: {simplex: 0}", "needs more than 0, is 0"),
        ("loss.weights.inpainting.adv: {simplex: 1}", "at least two keys, named by `\\*` as in loss.weights.*.adv"),
        # What no configuration can have, at either end of a range or as one of several.
        ("optim.generator.lr: {uniform: [-1, 1]}", "optim.generator.lr: needs more than 0, is -1"),
        ("model.noise: {uniform: [0, 1]}", "model.noise: needs less than 1, is 1"),
        ("optim.*.lr: {simplex: 1}", "optim.discriminators.lr: needs more than 0, is 0"),
        ("schedule.batch: {uniform: [16, 64]}", "needs an integer"),
        ("optim.generator.betas: {uniform: [0, 1]}", "needs a list, is 0"),
        ("loss.adv: {choice: [ns, minmax, wgan]}", "'ns', 'minmax' or 'printed', is 'wgan'"),
    ],
)  # fmt: skip
def test_a_bad_domain_is_reported_with_its_line(domain, message):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:4: .*({message})"):
        space(f"metric: psnr\n\nspace:\n  {domain}")


@pytest.mark.parametrize(
    "key",
    ["seed", "hole.kind", "data.split", "data.image_size", "data.face_square", "data.max_damaged", "evaluate.samples", "runtime.precision",
     "checkpoint.every", "log.every", "schedule.steps", "schedule.epochs", "model.tasks", "model.name", "deterministic", "data.shards"],
)  # fmt: skip
def test_keys_of_the_comparison_cannot_be_searched(key):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:4: {key}: cannot be searched"):
        space(f"metric: psnr\n\nspace:\n  {key}: {{choice: [1, 2]}}")


def test_a_key_is_searched_once():
    text = "metric: psnr\nspace:\n  loss.weights.*.rec: {uniform: [1, 2]}\n  optim.generator.lr: {uniform: [0.1, 1]}\n"
    with pytest.raises(ConfigError, match=r"sweep\.yaml:5: loss.weights.landmarks.rec: is searched twice"):
        space(text + "  loss.weights.landmarks.rec: {uniform: [1, 3]}\n")
    with pytest.raises(ConfigError, match=r"sweep\.yaml:5: key space.optim.generator.lr is given twice"):
        space(text + "  optim.generator.lr: {uniform: [0.1, 2]}\n")


def test_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"none.yaml: cannot read the search space .*nown by name: lambda"):
        read_space(str(tmp_path / "none.yaml"), load_config("stable"))


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_needs_its_task(metric):
    """Every metric is refused for a model without its task and taken, with its direction, for one of that task alone."""
    mode, task = METRICS[metric]
    sets = ["evaluate.features=a/parser"] if metric in ("frechet", "perceptual") else []
    own, other = {"inpainting": ("M_i", "M_s"), "segmentation": ("M_s", "M_id"), "landmarks": ("M_d", "M_is")}[task]
    assert space(f"metric: {metric}\n{LR}", model=own, sets=sets).modes == (mode,)
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:2: metric: {metric} is of {task}, .*it has (psnr|dice), "):
        space(f"# one\nmetric: {metric}\n{LR}", model=other, sets=sets)
    if sets:
        with pytest.raises(ConfigError, match=f"{metric} needs a network to measure it in; set evaluate.features"):
            space(f"metric: {metric}\n{LR}", model=own)


def test_a_hole_metric_needs_holes():
    """Those of the evaluation count. (Every trial would be trained and then have no number.)"""
    why = r"sweep\.yaml:1: metric: there are no holes to measure dice_hole in; take dice, or"
    for sets in (["hole.kind=none"], ["hole.kind=none", "evaluate.hole=none"], ["evaluate.hole=none"]):
        with pytest.raises(ConfigError, match=why):
            space(f"metric: dice_hole\n{LR}", sets=sets)
        space(f"metric: dice\n{LR}", sets=sets)
    for sets in (["hole.kind=none", "evaluate.hole=O1"], ["hole.kind=pattern"]):
        space(f"metric: dice_hole\n{LR}", sets=sets)


@pytest.mark.parametrize(
    ("pattern", "model", "keys"),
    [
        ("loss.weights.*.adv", "M_isd", [f"loss.weights.{task}.adv" for task in TASK_WEIGHTS]),
        ("loss.weights.*.*", "M_s", ["loss.weights.segmentation.adv", "loss.weights.segmentation.rec"]),
        ("'*.generator.lr'", "M_s", ["optim.generator.lr"]),
        ("optim.*.lr", "M_s", ["optim.discriminators.lr", "optim.generator.lr"]),
        ("schedule.adv_from", "M_s", ["schedule.adv_from"]),  # its section has keys that cannot be searched
    ],
)
def test_a_star_matches_one_name(pattern, model, keys):
    one = space(f"metric: dice\nspace: {{{pattern}: {{integers: [1, 9]}}}}", model=model)
    assert sorted(one.keys) == sorted(keys)


def test_values_reach_the_configuration_and_nothing_else_changes():
    one = space("metric: psnr\nspace: {loss.weights.*.adv: {simplex: 1}, optim.generator.lr: {uniform: [0.1, 1]}}")
    before = dict(one.base)
    values = {"loss.weights.landmarks.adv": 0.25, "optim.generator.lr": 0.5}
    expected = load_config("stable", None, [f"{key}={value}" for key, value in values.items()] + ["seed=4"])
    assert one.config(values, seed=4) == expected and one.base == before
    assert one.config({}) == load_config("stable")


LR_KEY, REC = "optim.generator.lr", "loss.weights.inpainting.rec"
# Section 4.2 of the paper: (λ_adv, λ_rec) by number of tasks.
PAPER = {
    "M_i": {"inpainting": (1, 100)}, "M_s": {"segmentation": (1, 1000)}, "M_d": {"landmarks": (1, 1000)},
    "M_is": {"inpainting": (0.8, 100), "segmentation": (0.2, 200)}, "M_id": {"inpainting": (0.8, 100), "landmarks": (0.2, 200)},
    "M_isd": {"inpainting": (0.8, 100), "segmentation": (0.1, 200), "landmarks": (0.1, 200)},
}  # fmt: skip


@pytest.mark.parametrize("model", PAPER)
def test_the_papers_weights_are_tried_first(model):
    mine = [f"loss.weights.{task}.{part}=7.5" for task in PAPER[model] for part in ("adv", "rec")]
    metric = "psnr" if "i" in model else "dice" if "s" in model else "landmark_error"
    one = space(f"metric: {metric}\nspace: {{loss.weights.*.*: {{uniform: [0, 9]}}}}", model=model, sets=mine)
    paper = {f"loss.weights.{task}.{part}": both[i] for task, both in PAPER[model].items() for i, part in enumerate(("adv", "rec"))}  # fmt: skip
    assert one.initial_points() == [("paper", paper), ("base", dict.fromkeys(one.keys, 7.5))]


@pytest.mark.parametrize(
    ("preset", "sets", "keys", "expected"),
    [
        ("ce", [], "loss.weights.*.rec", {"base": {REC: 0.999}}),
        ("gfc", [], "loss.weights.*.rec", {"base": {REC: 1}}),
        ("stable", [f"{LR_KEY}=0.5"], LR_KEY, {"base": {LR_KEY: 0.5}}),
        ("stable", [f"{LR_KEY}=0.5", f"{REC}=3", "loss.weights.landmarks.rec=3"], f"{REC} {LR_KEY}",
         {"paper": {REC: 100, LR_KEY: 0.5}, "base": {REC: 3, LR_KEY: 0.5}}),
    ],
)  # fmt: skip
def test_peers_and_other_keys_start_at_the_base_configuration(preset, sets, keys, expected):
    domains = ", ".join(f"{key}: {{uniform: [0.1, 9]}}" for key in keys.split())
    one = space(f"metric: psnr\nspace: {{{domains}}}", preset=preset, sets=sets)
    assert one.initial_points() == list(expected.items())


START = """metric: psnr
space:
  loss.weights.*.adv: {simplex: 1}
  optim.generator.lr: {uniform: [0.1, 1]}
  loss.adv: {choice: [ns, minmax]}
start:
"""


def test_own_starting_points_come_after_the_papers():
    """What is left out is the base configuration's; what is the paper's or the base's is not tried again."""
    own = (
        "  - {optim.generator.lr: 0.5}\n  - {loss.weights.*.adv: 0.3333333333, loss.adv: minmax}\n  - {loss.adv: ns}\n"
    )
    one = space(START + own, sets=[f"{LR_KEY}=0.2"])
    (role, paper), *others = one.initial_points()
    assert role == "paper" and paper[LR_KEY] == 0.2 and [role for role, _ in others] == ["start", "start"]
    thirds = {f"loss.weights.{task}.adv": 0.3333333333 for task in TASK_WEIGHTS}
    assert [values for _, values in others] == [paper | {LR_KEY: 0.5}, paper | thirds | {"loss.adv": "minmax"}]


@pytest.mark.parametrize(
    ("points", "line", "message"),
    [
        ("  - {optim.generater.lr: 0.5}", 7, "start: optim.generater.lr is not searched; did you mean optim.generator.lr?"),
        ("  - {model.noise: 0.5}", 7, "start: model.noise is not searched"),
        ("  - {loss.adv: ns}\n  - {optim.generator.lr: 0.05}", 8, r"start: optim.generator.lr = 0.05: is outside the space \(from 0.1 to 1\)"),
        ("  - {loss.adv: printed}", 7, r"start: loss.adv = printed: is outside the space \(one of ns, minmax\)"),
        ("  - loss.adv: ns\n    optim.generator.lr: fast", 8, "optim.generator.lr: needs a number, is 'fast'"),
        ("  - {loss.adv: [ns]}", 7, "loss.adv: "),
        ("  - {loss.weights.landmarks.adv: 0.5}", 7, r"start: .*landmarks.adv = 0.5: is outside .*adding up to 1"),
        ("  - {loss.adv: ns}\n  - {loss.adv: ns}", 8, "start: the same values are given twice"),
        ("  - {loss.adv: ns, loss.adv: minmax}", 7, "key start.0.loss.adv is given twice"),
        ("  - 0.5", 6, "start.0: needs keys and values, is 0.5"),
    ],
)  # fmt: skip
def test_a_bad_starting_point_is_reported_with_its_line(points, line, message):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:{line}: .*{message}"):
        space(START + points, sets=[f"{LR_KEY}=0.2"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("landmark_error", "landmark_error is of landmarks, a task the model has not"),
        ("dice_hole", "there are no holes to measure"),
    ],
)
def test_a_constraint_needs_its_metric(name, message):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:3: constraints: {message}"):
        space(f"metric: psnr\nconstraints:\n  {name}: {{max: 2}}\n{LR}", model="M_is", sets=["hole.kind=none"])


def test_a_grid_has_every_combination_once():
    keys = "{loss.adv: {choice: [ns, minmax]}, optim.*.lr: {choice: [0.1, 0.2, 0.3]}}"
    one = space(f"metric: psnr\nsearch: grid\nspace: {keys}")
    points = [tuple(values.values()) for values in one.grid()]
    assert len(set(points)) == len(points) == 2 * 3 * 3
    assert points[:4] == [("ns", 0.1, 0.1), ("ns", 0.1, 0.2), ("ns", 0.1, 0.3), ("ns", 0.2, 0.1)]


@pytest.mark.parametrize("preset", ["stable", "demo", "paper"])
def test_the_packaged_search_space(preset):
    one = read_space(str(ROOT / "cluster/sweep.yaml"), load_config(preset))
    assert len(one.keys) == 6 and all(key.startswith("loss.weights.") for key in one.keys)
    assert [role for role, _ in one.initial_points()] == (["paper", "base"] if preset == "demo" else ["paper"])
    for _, values in one.initial_points():
        assert one.config(values).model == load_config(preset).model
    ranges = re.findall(r"\[(\d+), (\d+)\]", (ROOT / "cluster/sweep.yaml").read_text())
    for (low, high), task in zip(ranges, TASK_WEIGHTS, strict=True):  # around the paper's
        assert int(low) * int(high) == pytest.approx(TASK_WEIGHTS[task][2][1] ** 2, rel=0.11)
