"""Loading of a run's configuration: defaults < preset or YAML file < `--model` < `--set a.b=c`.

Everything is checked here, before any device is used. The run folder stores the result as config.yaml.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from collagan_dist.config import strict_yaml
from collagan_dist.config.models import (
    CONTROLS,
    MODELS,
    PEERS,
    TASK_WEIGHTS,
    model_name,
    model_settings,
    paper_weights,
)
from collagan_dist.config.strict_yaml import Lines
from collagan_dist.config.tree import Config, Model
from collagan_dist.errors import ConfigError

_PLACES = ("data.shards", "data.cache.")  # where the data lies, which says nothing of a training


def preset_names() -> list[str]:
    """Return the names of the configurations in presets/."""
    names = (p.name for p in resources.files("collagan_dist.presets").iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def load_config(
    source: str | Config, model: str | None = None, sets: Iterable[str] = (), shards: str | None = None
) -> Config:
    """Load preset or YAML file `source`, or take a Config, and apply the command line's `--model`, `--set` and `--data`.

    Raises ConfigError that names file, line and key.
    """
    lines: dict[tuple[str, ...], int | str] = {}
    if isinstance(source, Config):
        if model is not None:  # its loss weights are those of its own tasks
            raise ConfigError(f"model {model}: a Config has its model; give a preset or a YAML file with --model")
        tree, where = config_to_dict(source), "configuration"
    else:
        text, where = _read_source(source)
        tree, found = strict_yaml.load(text, where)
        lines.update(found)
    # --model before --set, so that a key of the model can be changed.
    if model is not None:
        tree = _with_peer(tree, model) if model in PEERS else _with_model(tree, model)
    for item in sets:
        key, value = strict_yaml.parse_assignment(item)
        strict_yaml.check_key(Config, key, f"--set {item}")
        set_nested(tree, key, value)
        # An error in a key that was set names the argument, not the line of the file.
        lines = {path: line for path, line in lines.items() if path[: len(key)] != key} | {key: f"--set {item}"}
    if shards is not None:
        set_nested(tree, ("data", "shards"), shards)
    return validate_config(tree, where, lines)


def assignments(settings: Mapping[str, Any] | None) -> list[str]:
    """Return values of dotted keys as `--set` takes them. Raises ConfigError for a value that no configuration has."""
    try:
        return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    except TypeError as error:
        raise ConfigError(f"settings: {error}; give numbers, texts, booleans, None, lists or dicts") from None


def changed_keys(sets: Iterable[str]) -> list[str]:
    """Return the dotted keys of the command line's `--set`. Raises ConfigError."""
    return [".".join(strict_yaml.parse_assignment(item)[0]) for item in sets]


def validate_config(tree: Mapping[str, Any], where: str, lines: Lines | None = None) -> Config:
    """Return a checked Config from plain data. `lines` are line numbers of keys for error messages. Raises ConfigError."""
    return strict_yaml.validate(Config, _with_weights(tree), where, lines)


def model_label(model: Model) -> str:
    """Return the paper's name of a model, as M*_isd or CE."""
    return model_name(model.name, model.tasks, model.concentrated)


def config_to_dict(config: Config) -> dict[str, Any]:
    """Return plain data that `validate_config` turns back into an equal Config."""
    return config.model_dump(mode="json")


def to_yaml(config: Config) -> str:
    """Return the text of RUN/config.yaml."""
    return strict_yaml.dump(config_to_dict(config))


def identity_keys(
    config: Config, manifest_hash: str | None = None, parser: str | None = None, init: str | None = None
) -> dict[str, Any]:
    """Return the identity keys: all that decides what is learned. A resumed run may not change them.

    `manifest_hash` identifies the shards, `parser` the weights of GFC's parser, `init` those that the run started from; the folders
    that hold them may change.
    """
    tree = config_to_dict(config)
    data = {k: v for k, v in tree["data"].items() if k not in ("shards", "cache", "keep", "threads", "max_damaged")}
    # A path says nothing of the weights behind it.
    tree["model"]["gfc"]["parser"], tree["model"]["init"] = parser, init
    return {
        **{section: tree[section] for section in ("model", "loss", "hole", "optim", "seed")},
        "data": data,
        # Not the length: a run may be made longer.
        "schedule": {"batch": tree["schedule"]["batch"]},
        "manifest": manifest_hash,
    }


def identity_hash(config: Config, manifest_hash: str | None = None) -> str:
    """Return 8 hexadecimal digits that name the default run folder."""
    learned = identity_keys(config, manifest_hash, config.model.gfc.parser, config.model.init)
    return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line "key: old -> new" for every leaf in which two plain trees differ."""
    return [f"{key}: {before} -> {after}" for key, before, after in leaf_differences(old, new)]


def leaf_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, old, new) for every leaf in which two plain trees differ; None stands for a key that one lacks."""
    # What an empty section lacks is told by the keys of the other one.
    before, after = ({key: value for key, value in leaves(tree).items() if value != {}} for tree in (old, new))
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            yield key, before.get(key), after.get(key)


def changed_settings(config: Config) -> tuple[str, dict[str, Any]]:
    """Return the preset that a configuration is nearest to, with its own model, and the dotted keys that differ, as JSON has them.

    Where the shards lie is no difference.
    """
    own = leaves(config_to_dict(config))
    differing = {}
    for name in preset_names():
        preset = preset_settings(name, config)
        changed = {key for key in {*own, *preset} if own.get(key) != preset.get(key)}
        differing[name] = {key: own.get(key) for key in sorted(changed) if not key.startswith(_PLACES)}
    # Of equally near ones the one that people use.
    nearest = min(differing, key=lambda name: (len(differing[name]), name != "stable", name))
    return nearest, differing[nearest]


def preset_settings(name: str, config: Config) -> dict[str, Any]:
    """Return the dotted settings of a preset with the model of `config`, as JSON has them."""
    label = model_label(config.model)
    return _preset_leaves(name, label if label in (*MODELS, *CONTROLS, *PEERS) else None)


@lru_cache(maxsize=128)
def _preset_leaves(name: str, model: str | None) -> dict[str, Any]:
    return leaves(config_to_dict(load_config(name, model)))


def _read_source(source: str) -> tuple[str, str]:
    # A preset has neither ending nor slash, so that a file can never hide one, nor a preset a file.
    if source.endswith((".yaml", ".yml")) or "/" in source:
        hint = f"give a YAML file or a preset: {', '.join(preset_names())}"
        return strict_yaml.read_text(source, "configuration", hint), source
    if source not in preset_names():
        near = difflib.get_close_matches(source, preset_names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"there is no preset {source!r}{hint or '.'} Presets: {', '.join(preset_names())}; a file must end in .yaml"
        )
    return resources.files("collagan_dist.presets").joinpath(f"{source}.yaml").read_text(), f"preset {source}"


def _with_model(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the tree with one of the paper's models."""
    settings = model_settings(name)
    tree = _merged(tree, {"model": settings})
    weights = get_nested(tree, "loss", "weights")
    if isinstance(weights, dict):
        # A λ of a task that the model lacks would be refused; the preset has those of all tasks.
        set_nested(tree, ("loss", "weights"), {t: w for t, w in weights.items() if t in settings["tasks"]})
    return tree


def _with_peer(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the tree with a peer of Table 1.

    Loss and optimizers are those of the peer's preset; in model, hole, data and evaluate its keys win. All else stays.
    """
    peer, _ = strict_yaml.load(*_read_source(name.lower()))
    own = {section: peer[section] for section in ("loss", "optim") if section in peer}
    merged = {section: peer[section] for section in ("model", "hole", "data", "evaluate") if section in peer}
    return _merged({k: v for k, v in tree.items() if k not in ("loss", "optim")} | own, merged)


def _merged(tree: Any, changes: dict[str, Any]) -> Any:
    """Return the tree with `changes`, section by section."""
    if not isinstance(tree, dict):
        return changes
    return tree | {k: _merged(tree.get(k), v) if isinstance(v, dict) else v for k, v in changes.items()}


def _with_weights(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tree with the missing λ filled in: section 4.2's for the number of tasks."""
    tasks = get_nested(tree, "model", "tasks") or Model().tasks
    given = get_nested(tree, "loss", "weights") or {}
    if (
        not isinstance(tasks, list | tuple)
        or not isinstance(given, dict)
        or not isinstance(tree.get("loss") or {}, dict)
    ):
        return tree  # a wrong type, which validation reports with its line
    weights = dict(given)
    for task in tasks:
        if str(task) in TASK_WEIGHTS and isinstance(given.get(task, {}), dict):
            adv, rec = paper_weights(task, len(tasks))
            weights[task] = {"adv": adv, "rec": rec, **given.get(task, {})}
    return {**tree, "loss": {**(tree.get("loss") or {}), "weights": weights}}


def leaves(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return every value of nested mappings under its dotted key, which begins with `path`.

    An empty mapping is a value. A list is one, too, unless it holds mappings: then a number stands for the name.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        # A number instead of a line of nested braces.
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        found |= leaves(value, f"{path}{key}.") if isinstance(value, Mapping) and value else {f"{path}{key}": value}
    return found


def get_nested(tree: Any, *path: str) -> Any:
    """Return the value at a path of nested mappings, or None."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def set_nested(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a value at a path of nested mappings and create missing ones. Raises ConfigError when a part of it is a value."""
    for key in path[:-1]:
        # A key may be given under a section that the file leaves out.
        child = tree.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{'.'.join(path)}: {key} is a value ({child!r}), not a section")
        tree = child
    tree[path[-1]] = value
