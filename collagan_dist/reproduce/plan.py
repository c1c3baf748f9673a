"""The runs that the requested tables and figures need: their configurations, and the evaluations of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import config_to_dict, load_config, validate_config
from collagan_dist.config.models import PEERS, model_settings
from collagan_dist.config.tree import Config
from collagan_dist.errors import ConfigError
from collagan_dist.reproduce import paper
from collagan_dist.runs.evaluation_name import evaluation_settings, evaluation_variant
from collagan_dist.runs.layout import RunPaths
from collagan_dist.types import POSITIONS

FIGURES: Final[dict[int, tuple[str, ...]]] = {
    1: ("M_i", "M*_isd"),
    3: ("M*_isd",),
    4: ("M_i", "M_id", "M_is", "M_isd", "M*_isd"),
    5: ("M*_isd", "M*_isd-noise", "CE", "CE-noise", "SII", "GFC"),
    6: ("M_isd", "M_i"),
}
PARSER: Final = "parser"
# The run in whose features completions are compared (evaluate.features).
FEATURES: Final = "M_s"
# In the order of training: the run that evaluations need, the models of the main comparison, GFC after the parser that it needs.
ORDER: Final = (
    FEATURES, "M_i", "M*_isd", "M_isd", "M*_i", "M_id", "M_is", "M_d", "M*_id", "M*_is", "M*_isd-noise", "CE", "CE-noise", "SII",
    PARSER, "GFC",
)  # fmt: skip
# These keys distinguish the runs from each other, so --set may not change them.
_RUN_KEYS: Final = ("model.name", "model.tasks", "model.concentrated", "hole.kind", "data.shards", "data.split")
# A shorter evaluation than of these many samples says nothing.
_FEWEST_SAMPLES: Final = 16
# A peer keeps its published loss and optimizer, and those of the other keys that its preset sets.
_PUBLISHED_SECTIONS: Final = ("loss", "optim")
_PUBLISHED_KEYS: Final = (("data", "image_size"), ("hole", "fill"), ("model", "output_bias"))


@dataclass(frozen=True)
class ReproduceOptions:
    """The options of `collagan reproduce`. `ranks` is None for one rank a GPU, no `models` are all of the tables."""

    config: str
    data: str
    out: Path
    tables: tuple[int, ...] = paper.TABLES
    figures: tuple[int, ...] = tuple(FIGURES)
    scale: float = 1.0
    seeds: int = 1
    sets: tuple[str, ...] = ()
    ranks: int | None = None
    reading: paper.Reading = "numbers"
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRun:
    """One training and its evaluations.

    `base` is the name without the seed. `holes` maps each kind of hole to evaluate to whether it is evaluated blended
    too. `needs` is the run that must be done before this one.
    """

    name: str
    base: str
    config: Config
    out: Path
    steps: int
    holes: dict[str, bool] = field(default_factory=dict)
    needs: str | None = None

    @property
    def folder(self) -> Path:
        return self.out / "runs" / self.name

    @property
    def config_file(self) -> Path:
        return self.out / "configs" / f"{self.name}.yaml"

    @property
    def log(self) -> Path:
        return self.out / "logs" / f"{self.name}.log"

    def evaluation(self, hole: str, blended: bool) -> Path:
        """Return the JSON file of the evaluation on the test split."""
        blend = "poisson" if blended else "none"
        variant = evaluation_variant(self.folder, evaluation_settings(self.config))
        return RunPaths(self.folder).evaluation("test", hole, blend, self.config.evaluate.positions, variant)


def make_plan(options: ReproduceOptions, samples: int, test_samples: int) -> list[PlannedRun]:
    """Return the runs that are needed, in the order of training. The two numbers are the lengths of the splits.

    Raises ConfigError for keys that --set may not change.
    """
    check_sets(options)
    needed = _needed_holes(options)
    if FEATURES in needed:
        # Before those of the user, who may name another network.
        features = f"evaluate.features={_folder(options.out, FEATURES)}"
        options = replace(options, sets=(features, *options.sets))
    runs = []
    for base in (one for one in ORDER if one in needed):
        for seed in range(options.seeds if base in (options.models or paper.SEEDED) else 1):
            runs.append(_run(options, base, seed, (samples, test_samples), needed[base]))
    # The parser is not trained where --set names another one for GFC.
    own_parser = any(run.base == "GFC" and run.needs is None for run in runs)
    return [run for run in runs if not (run.base == PARSER and own_parser)]


def not_applied(options: ReproduceOptions, runs: Iterable[PlannedRun]) -> dict[str, list[str]]:
    """Return each `--set` item with the runs it does not apply to: other tasks, and peers whose settings are published."""
    found: dict[str, list[str]] = {}
    for run in runs:
        for item in options.sets:
            if item not in _applicable([item], _model(run.base)):
                found.setdefault(item, []).append(run.name)
    return found


def chains(runs: Iterable[PlannedRun]) -> list[list[PlannedRun]]:
    """Return groups of runs that are independent of each other; within a group the first run comes before the others."""
    found: dict[str, list[PlannedRun]] = {}
    for run in runs:
        found.setdefault(run.needs or run.name, []).append(run)
    return list(found.values())


def chosen_models(table: int, models: Collection[str]) -> list[str]:
    """Return the models of a table and its controls, those of `models` alone where there are any."""
    return [one for one in (*paper.rows(table), *paper.controls(table)) if not models or one in models]


def check_sets(options: ReproduceOptions) -> None:
    """Raise ConfigError for keys that --set may not change."""
    for item in options.sets:
        key = ".".join(strict_yaml.parse_assignment(item)[0])
        if key in _RUN_KEYS:
            raise ConfigError(f"--set {item}: {key} distinguishes the paper's runs; reproduce sets it itself")


def _needed_holes(options: ReproduceOptions) -> dict[str, dict[str, bool]]:
    """Return the holes to evaluate (and whether blended too) of each run that is needed at all."""
    needed: dict[str, dict[str, bool]] = {}
    known = [model for table in options.tables for model in chosen_models(table, ())]
    if others := [model for model in options.models if model not in known]:
        raise ConfigError(
            f"--models {','.join(others)}: in none of the requested tables; those have {', '.join(dict.fromkeys(known))}"
        )
    for table in options.tables:
        for model in chosen_models(table, options.models):
            # The paper does not say whether Table 1 is blended, so it is evaluated both ways.
            holes = dict.fromkeys(POSITIONS, True) if table == 1 else {"block": False}
            needed.setdefault(model, {}).update(holes)
    for figure in options.figures:
        for name in FIGURES[figure]:
            needed.setdefault(name, {})
    # A loss of GFC needs a parser that is trained already.
    if "GFC" in needed:
        needed[PARSER] = {}
    return needed


def _run(
    options: ReproduceOptions, base: str, seed: int, samples: tuple[int, int], holes: dict[str, bool]
) -> PlannedRun:
    name = f"{base}-seed{seed}" if seed else base
    config = _config(options, base)
    tree = config_to_dict(config)
    tree["seed"] += seed
    _scale_training(tree, config, samples[0], options.scale)
    _scale_evaluation(tree["evaluate"], samples[1], options.scale)
    needs = PARSER if config.model.gfc.parser == _folder(options.out, PARSER) else None
    final = validate_config(tree, f"run {name}")
    assert final.schedule.steps is not None
    return PlannedRun(name, base, final, options.out, final.schedule.steps, holes, needs)


def _config(options: ReproduceOptions, base: str) -> Config:
    """Return the configuration of one run, at its full length."""
    model = _model(base)
    # The parser sees complete faces, and SII trains as a plain GAN: neither sees holes.
    kind = {PARSER: "none", "SII": "none"}.get(base, "noise" if base.endswith("-noise") else "block")
    # Without it the crop at test gives the landmarks away (docs/paper.md).
    sets = ["evaluate.augment=true", *_applicable(options.sets, model), f"hole.kind={kind}"]
    config = load_config(options.config, model, sets, options.data)
    if base == "GFC" and config.model.gfc.parser is None:
        sets.append(f"model.gfc.parser={_folder(options.out, PARSER)}")
        config = load_config(options.config, model, sets, options.data)
    return config


def _model(base: str) -> str:
    return "M_s" if base == PARSER else base.removesuffix("-noise")


def _folder(out: Path, run: str) -> str:
    # Absolute: a Ray worker or a batch job may start in another folder.
    return str((out / "runs" / run).absolute())


def _applicable(sets: Iterable[str], model: str) -> Iterator[str]:
    """Yield the settings that apply to a model."""
    for item in sets:
        key = strict_yaml.parse_assignment(item)[0]
        if model in PEERS:
            applies = key[0] not in _PUBLISHED_SECTIONS and not (key in _PUBLISHED_KEYS and _preset_sets(model, key))
        else:
            # A model without landmarks has no loss.weights.landmarks.
            tasks = model_settings(model)["tasks"]
            applies = key[:2] != ("loss", "weights") or len(key) < 3 or key[2] in tasks
        if applies:
            yield item


def _preset_sets(peer: str, key: tuple[str, ...]) -> bool:
    """Return whether a peer's preset has the key `section.name`."""
    name = f"{peer.lower()}.yaml"
    text = resources.files("collagan_dist.presets").joinpath(name).read_text()
    return key[1] in strict_yaml.load(text, name)[0].get(key[0], {})


def _scale_training(tree: dict[str, Any], config: Config, samples: int, scale: float) -> None:
    """Give the length in steps, and multiply all that is counted in training steps by `scale`."""
    from collagan_dist.data.loading.order import planned_steps

    # Epochs depend on the batch and on the data set; a number of steps can be scaled and compared.
    steps = planned_steps(config.schedule, samples)
    tree["schedule"]["steps"] = _scaled(steps, scale)
    # 0 means that adversarial losses are on from the start, at any scale.
    # A share scales by itself.
    if config.schedule.adv_from and isinstance(config.schedule.adv_from, int):
        tree["schedule"]["adv_from"] = _scaled(config.schedule.adv_from, scale)
    for section, key in (("checkpoint", "every"), ("log", "every"), ("log", "grid_every")):
        tree[section][key] = _scaled(tree[section][key], scale)


def _scale_evaluation(evaluate: dict[str, Any], test_samples: int, scale: float) -> None:
    """Multiply the number of samples and the steps of SII's search by `scale`, where that is below 1."""
    scale = min(scale, 1.0)
    if scale < 1:
        samples = min(evaluate["samples"] or test_samples, test_samples)
        evaluate["samples"] = min(samples, max(_FEWEST_SAMPLES, _scaled(samples, scale)))
    if evaluate["baselines"]:
        few = min(evaluate["baselines"], _FEWEST_SAMPLES)
        evaluate["baselines"] = max(few, _scaled(evaluate["baselines"], scale))
    evaluate["search"]["steps"] = _scaled(evaluate["search"]["steps"], scale)


def _scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))
