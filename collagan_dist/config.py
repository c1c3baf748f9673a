"""The configuration of a run: typed, frozen, checked before any device is touched.

Defaults < preset or YAML file < `--model` < `--set a.b=c`. Unknown keys, NaN, duplicate keys and YAML tags are refused
with file, line and the nearest valid key. The resolved tree is what the run folder keeps as config.yaml.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from collagan_dist import strict, yaml_strict
from collagan_dist.contract import HoleKind
from collagan_dist.errors import ConfigError
from collagan_dist.strict import Lines, Section

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Widths(Section):
    generator: Count = 64
    """Channels of the first encoder layer; doubled a layer up to 8 times this (decisions of pix2pix's unet_128)."""
    discriminator: Count = 64
    """Channels of each discriminator's first layer; doubled a layer."""


class Model(Section):
    name: Literal["collagan"] = "collagan"
    tasks: tuple[str, ...] = ("inpainting", "segmentation", "landmarks")
    """Ω. A task that is left out leaves no channels, no discriminator and no metric."""
    concentrated: bool = True
    """The inpainting-concentrated scheme of section 3.3 (eqs. 4-6): M* instead of M."""
    widths: Widths = Widths()
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """z of eq. 1: dropout probability in the first three decoder layers, in training only."""
    output_bias: Literal["mean", "zero"] = "mean"
    """Start of the output layer. `mean`: the targets' mean, without which sparse outputs stay at -1 for long."""
    heatmap_sigma: Positive = 3.0
    """Standard deviation of the landmark Gaussians, pixels of a 128x128 picture (scaled with image_size)."""

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError("needs at least one task, each at most once")
        return tasks


class TaskWeights(Section):
    adv: Annotated[float, Field(ge=0)]
    """λ_adv of eq. 1."""
    rec: Annotated[float, Field(ge=0)]
    """λ_rec of eq. 2."""


# λ of section 4.2 as (adv, rec) for a model of one, two, and three or more tasks.
TASK_WEIGHTS: dict[str, tuple[tuple[float, float], ...]] = {
    "inpainting": ((1.0, 100.0), (0.8, 100.0), (0.8, 100.0)),
    "segmentation": ((1.0, 1000.0), (0.2, 200.0), (0.1, 200.0)),
    "landmarks": ((1.0, 1000.0), (0.2, 200.0), (0.1, 200.0)),
}


class Loss(Section):
    adv: Literal["ns", "minmax", "printed"] = "ns"
    """Adversarial form: non-saturating, the min-max game, or the equations as printed (1 - log D)."""
    weights: dict[str, TaskWeights] = {}
    """λ per task. What is not given takes section 4.2's value for the number of tasks."""
    inpainting_over: Literal["all", "hole"] = "all"
    """M*'s L1 (eq. 6) averaged over all pixels or over those of the hole; a hole of 1/4 makes `hole` 4 times larger."""


class Hole(Section):
    kind: HoleKind = "block"
    """Training holes of section 4.1: half-size block, random pattern of about 25 %, 80 % of the pixels, or no hole."""


class Augment(Section):
    shift: Fraction = 0.05
    """Largest shift, as a share of the picture's side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 5.0
    """Largest rotation, degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of scale."""
    flip: Fraction = 0.5
    """Probability of mirroring."""


class Cache(Section):
    """Copies of shards that lie behind a URL: one for all ranks of a node, and for all runs."""

    folder: str | None = None
    """Where they lie; null: collagan_dist/shards below $XDG_CACHE_HOME or ~/.cache."""
    gigabytes: Positive = 50.0
    """Most that they take, in 10^9 bytes; what was not used for longest makes room."""


class Data(Section):
    shards: str | None = None
    """Folder of shards made by `collagan pack`, or its URL (http, https, s3, gs, gcs, az, abfs)."""
    cache: Cache = Cache()
    split: str = "train"
    image_size: Literal[32, 64, 128, 256, 512] = 128
    augment: Augment = Augment()
    window: Annotated[int, Field(ge=1, le=256)] = 128
    """Shards that a run reads from at a time. A split of no more is shuffled whole; smaller windows suit network storage."""
    max_damaged: Annotated[int, Field(ge=0)] = 100
    """Samples damaged since packing that a start puts up with: each is named, and another shown in its place."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Decoding threads of a rank; 0 shares the machine's cores among its ranks."""


class Adam(Section):
    lr: Positive = 2e-4
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    decay_from: Fraction = 1.0
    """Share of the steps after which the learning rate falls linearly, ending at decay_to times itself."""
    decay_to: Fraction = 1.0


class Optim(Section):
    generator: Adam = Adam()
    discriminators: Adam = Adam()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the generator that evaluation uses; 0 is off."""


class Schedule(Section):
    epochs: Count = 20
    """Length as passes over the split: ceil(epochs x samples / batch) steps."""
    steps: Count | None = None
    """Length in steps; wins over epochs."""
    batch: Annotated[int, Field(ge=2)] = 64
    """Global batch: samples of one step over all ranks."""
    adv_from: Annotated[int, Field(ge=0)] = 0
    """First step with the adversarial part."""


class Runtime(Section):
    engine: Literal["plain", "ddp"] = "ddp"
    """How ranks train together; one rank alone is always plain."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast: networks in bfloat16, logits, losses and optimizer in float32."""
    channels_last: bool = False
    """Memory layout of pictures and convolutions; faster with bf16."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a rank for the networks; 0 shares the machine's cores among its ranks."""
    timeout: Count = 300
    """Seconds after which a collective operation is given up."""


class Checkpoint(Section):
    every: Count = 1000
    keep: Count = 3


class Evaluate(Section):
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations in training; 0 is never."""
    split: str = "valid"
    hole: HoleKind | None = None
    """Holes of the evaluation; null: those of training."""
    baselines: Annotated[int, Field(ge=0)] = 512
    """Samples on which the slow baselines (biharmonic inpainting) are computed, beside the model on the same ones."""


class Log(Section):
    every: Count = 50
    """Steps between lines of metrics.jsonl."""
    grid_every: Count = 500
    """Steps between picture grids."""


class Config(Section):
    """A whole run."""

    model: Model = Model()
    loss: Loss = Loss()
    hole: Hole = Hole()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    runtime: Runtime = Runtime()
    checkpoint: Checkpoint = Checkpoint()
    evaluate: Evaluate = Evaluate()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0)] = 0
    deterministic: bool = False
    """Ask torch for deterministic kernels (CPU runs are deterministic without it)."""

    @model_validator(mode="after")
    def _known_tasks(self) -> Config:
        for task in self.model.tasks:
            if task not in TASK_WEIGHTS:
                raise ValueError(f"model.tasks: there is no task {task!r}; choose from {', '.join(TASK_WEIGHTS)}")
        for task in self.loss.weights:
            if task not in self.model.tasks:
                raise ValueError(f"loss.weights.{task}: the model has no such task ({', '.join(self.model.tasks)})")
        return self


# `--model`: the paper's names for sets of tasks, with * for the concentrated scheme.
_TASK_OF_LETTER = {"i": "inpainting", "s": "segmentation", "d": "landmarks"}
MODELS = ("M_i", "M_s", "M_d", "M_id", "M_is", "M_isd", "M*_isd")


def model_settings(name: str) -> dict[str, Any]:
    """What `--model NAME` sets."""
    if name not in MODELS:
        raise ConfigError(f"--model {name}: no such model; choose from {', '.join(MODELS)}")
    head, letters = name.split("_")
    return {"tasks": [_TASK_OF_LETTER[c] for c in letters], "concentrated": head.endswith("*")}


def model_label(model: Model) -> str:
    """The paper's name of a configuration's model; the tasks' own names where the paper has none."""
    for name in MODELS:
        if model_settings(name) == {"tasks": list(model.tasks), "concentrated": model.concentrated}:
            return name
    letters = {task: letter for letter, task in _TASK_OF_LETTER.items()}
    star = "*" if model.concentrated and "inpainting" in model.tasks else ""
    return f"M{star}_" + "".join(letters.get(t, f"+{t}") for t in model.tasks)


def presets() -> list[str]:
    """Names of the run configurations that come with the package."""
    return sorted(
        p.name.removesuffix(".yaml")
        for p in resources.files("collagan_dist.presets").iterdir()
        if p.name.endswith(".yaml")
    )


def load_config(source: str, model: str | None = None, sets: Iterable[str] = (), shards: str | None = None) -> Config:
    """The configuration of preset or YAML file `source` with the command line's changes.

    Raises ConfigError naming file, line and key.
    """
    text, where = _read_source(source)
    tree, lines = yaml_strict.load(text, where)
    if model is not None:
        _put(tree, ("model",), {**tree.get("model", {}), **model_settings(model)})
        weights = _dig(tree, "loss", "weights")
        if isinstance(weights, dict):  # of a preset's weights, those of the tasks that remain
            _put(tree, ("loss", "weights"), {t: w for t, w in weights.items() if t in tree["model"]["tasks"]})
    for item in sets:
        key, value = yaml_strict.assignment(item)
        _put(tree, key, value)
        lines = {path: line for path, line in lines.items() if path[: len(key)] != key}
    if shards is not None:
        _put(tree, ("data", "shards"), shards)
    return validate(tree, where, lines)


def validate(tree: Mapping[str, Any], where: str, lines: Lines | None = None) -> Config:
    """A checked Config from plain data. `lines` are line numbers of keys for error messages."""
    return strict.validate(Config, _with_weights(tree), where, lines)


def dump(config: Config) -> dict[str, Any]:
    """Plain data that `validate` turns back into an equal Config."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    return yaml_strict.dump(dump(config))


def identity(config: Config, manifest_hash: str | None = None) -> dict[str, Any]:
    """The keys that say what is learned: they may not change when a run is continued."""
    tree = dump(config)
    data = {k: v for k, v in tree["data"].items() if k not in ("shards", "cache", "threads", "max_damaged")}
    return {
        **{section: tree[section] for section in ("model", "loss", "hole", "optim", "seed")},
        "data": data,
        "schedule": {"batch": tree["schedule"]["batch"]},
        "manifest": manifest_hash,
    }


def identity_hash(config: Config, manifest_hash: str | None = None) -> str:
    return hashlib.sha256(json.dumps(identity(config, manifest_hash), sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Lines "key: old -> new" for every leaf in which two plain trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [line for k in keys for line in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path}: {old} -> {new}"]


def _read_source(source: str) -> tuple[str, str]:
    if source.endswith((".yaml", ".yml")) or "/" in source:
        hint = f"give a YAML file or a preset: {', '.join(presets())}"
        return yaml_strict.read(source, "configuration", hint), source
    if source not in presets():
        near = difflib.get_close_matches(source, presets(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no preset {source!r}{hint} Presets: {', '.join(presets())}; a file must end in .yaml"
        )
    return resources.files("collagan_dist.presets").joinpath(f"{source}.yaml").read_text(), f"preset {source}"


def _with_weights(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """The tree with every λ that it leaves open: section 4.2's for the number of tasks."""
    tasks = _dig(tree, "model", "tasks") or Model().tasks
    given = _dig(tree, "loss", "weights") or {}
    if not isinstance(tasks, list | tuple) or not isinstance(given, dict):
        return tree  # of another type: the fields say so
    weights = dict(given)
    for task in tasks:
        if (rows := TASK_WEIGHTS.get(str(task))) is not None and isinstance(given.get(task, {}), dict):
            adv, rec = rows[min(len(tasks), len(rows)) - 1]
            weights[task] = {"adv": adv, "rec": rec, **given.get(task, {})}
    return {**tree, "loss": {**(tree.get("loss") or {}), "weights": weights}}


def _dig(tree: Any, *path: str) -> Any:
    """The value at a path of nested mappings; None where there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{'.'.join(path)}: {key} is a value ({child!r}), not a section")
        tree = child
    tree[path[-1]] = value
