import re
from pathlib import Path

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.sweep.space_spec import METRICS
from tests.sweep.spaces import LR, space


@pytest.mark.parametrize(
    ("head", "line", "message", "space_"),
    [
        ("mode: max\nmetric: psnr_hol", 2, "metric: there is none of the name 'psnr_hol'; choose from psnr, ", LR),
        ("search: nsga2\nmetric: []", 2, "metric: name at least one, each once", LR),
        ("search: nsga2\nmetric: [psnr, psnr]", 2, "metric: name at least one, each once", LR),
        ("metric: landmark_error\nmode: max", 2, "mode: of landmark_error it is min; leave it out", LR),
        ("metric: psnr\nmode: best", 2, "mode", LR),
        ("metric: [psnr, landmark_error]\nsearch: nsga2\nmode: [max, max]", 3, "mode: .*it is max, min", LR),
        ("metric: [psnr, landmark_error]\nsearch: nsga2\nmode: max", 3, "mode: .*it is max, min", LR),
        ("metric: psnr\nsearch: bayes", 2, "search: .*'random', 'grid', 'tpe' or 'nsga2'", LR),
        ("metric: psnr\nscheduler: halving", 2, "scheduler: .*'asha', 'sync_halving', 'pbt' or 'none'", LR),
        ("metric: psnr\nsearch: nsga2", 2, "search: nsga2 is for several metrics", LR),
        ("metric: [psnr, ssim]\nsearch: nsga2\nscheduler: sync_halving", 2, "search: .*nsga2 has nothing to learn from", LR),
        ("metric: psnr\nconstraints:\n  psnr_hol: {min: 2}", 3, "constraints.psnr_hol: there is none of the name 'psnr_hol'", LR),
        ("metric: psnr\nconstraints:\n  dice: {}", 3, "constraints.dice: needs min, max or both", LR),
        ("metric: psnr\nconstraints:\n  dice: {min: 2, max: 1}", 3, "constraints.dice: no value is from 2 to 1", LR),
        ("metric: psnr\nconstraints:\n  dice: {most: 2}", 3, "unknown key constraints.dice.most", LR),
        ("metric: psnr\nconstraints:\n  dice: {max: .nan}", 3, ".nan is not a finite number", LR),
        ("metric: psnr\nrepeats: 0", 2, "repeats: needs at least 1", LR),
        ("metric: psnr\nscheduler: pbt\nrepeats: 2", 3, "repeats: pbt changes the values of a run while it trains", LR),
        ("metric: psnr\nsearch: grid\nstart: [{optim.generator.lr: 0.1}]", 3, "start: a grid tries all", LR),
        ("metric: psnr\nstart: []", 2, "start: needs at least 1 items?", LR),
        *((f"metric: psnr\nscheduler: pbt\nsearch: {s}", 3, "search: pbt changes its members by itself", LR) for s in ("grid", "tpe")),
        ("metric: psnr\nscheduler: sync_halving\nsearch: tpe", 3, "search: .*tpe has nothing to learn from", LR),
        ("metric: psnr\nsearch: grid\n", 4, "a grid needs its values one by one: {choice", LR),
        ("metric: psnr\nsearch: grid\n", 4, "a grid needs", "space: {loss.weights.*.adv: {simplex: 1}}"),
        ("metric: psnr\nscheduler: pbt\n", 4, "pbt changes values while", "space: {model.noise: {uniform: [0, 0.5]}}"),
        ("metric: psnr\nscheduler: pbt\n", 4, "pbt changes values while", "space: {schedule.batch: {choice: [8, 16]}}"),
        ("metric: psnr\nrungs: {factor: 1}", 2, "rungs.factor: needs at least 2", LR),
        ("metric: psnr\nrungs: {first: 0}", 2, "rungs.first: needs at least 1", LR),
        ("metric: psnr\nrungs: {frist: 10}", 2, "unknown key rungs.frist; did you mean first", LR),
        ("metric: psnr\npbt: {quantile: 0.6}", 2, "pbt.quantile: needs at most 0.5", LR),
        ("metric: psnr\npbt: {quantile: 0}", 2, "pbt.quantile: needs more than 0", LR),
        ("metric: psnr\npbt: {resample: 2}", 2, "pbt.resample: needs at most 1", LR),
        ("metric: psnr\nschedular: asha", 2, "unknown key schedular; did you mean scheduler", LR),
        ("metric: psnr\n", 3, "space: .*at least 1 item", "space: {}"),
    ],
)  # fmt: skip
def test_a_bad_combination_is_reported_with_its_line(head, line, message, space_):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml:{line}: .*{message}"):
        space(f"{head}\n{space_}")


@pytest.mark.parametrize(("missing", "text"), [("space", "metric: psnr"), ("metric", LR)])
def test_a_missing_key_is_named(missing, text):
    with pytest.raises(ConfigError, match=rf"sweep\.yaml: {missing} is missing"):
        space(text)


def test_better_directions():
    assert {name for name, (mode, _) in METRICS.items() if mode == "min"} == {
        "landmark_error", "landmark_error_hole", "frechet", "perceptual"
    }  # fmt: skip
    both = space(f"metric: [psnr_hole, landmark_error]\nsearch: nsga2\nmode: [max, min]\n{LR}")
    assert both.metrics == ("psnr_hole", "landmark_error") and both.modes == ("max", "min")
    assert space(f"metric: psnr\nmode: max\n{LR}").modes == ("max",)


def test_the_documentation_names_every_metric():
    text = (Path(__file__).parents[2] / "docs/sweep.md").read_text()
    (listed,) = re.findall(r"^Metrics: (.*?)\. Per-class", text, re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", listed)) == set(METRICS)
