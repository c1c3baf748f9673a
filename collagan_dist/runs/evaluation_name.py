"""The names of evaluations: one of other data or settings than the run's own has a name of its own, so it replaces none."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from collagan_dist import structured
from collagan_dist.config.load import config_to_dict, load_config
from collagan_dist.config.tree import Config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs.feature_weights import weights_hash
from collagan_dist.runs.layout import DataRecord, RunPaths

# Keys of `evaluate` that change numbers. A result stores their values.
_RESULT_SETTINGS = (
    "positions",
    "fixed",
    "augment",
    "samples",
    "noise",
    "batch_norm",
    "readout",
    "ssim",
    "size",
    "search",
    "features",
)
_VARIANT = re.compile(r"(?:-data-([0-9a-f]{8}))?(?:-settings-([0-9a-f]{8}))?$")


def evaluation_settings(config: Config) -> dict[str, Any]:
    """Return the values of the keys of `evaluate` that change numbers; of `features` the hash of the network's weights."""
    tree = config_to_dict(config)["evaluate"]
    # Only completions are compared in features.
    if tree["features"] is not None:
        tree["features"] = _features_hash(tree["features"]) if "inpainting" in config.model.tasks else None
    # Results of the time before these keys existed have none, and are of views without augmentation, without features.
    return {key: tree[key] for key in _RESULT_SETTINGS if key not in ("augment", "features") or tree[key]}


def evaluation_variant(model: Path, settings: dict[str, Any], manifest: str | None = None) -> str:
    """Return the end of an evaluation's name: "" for the model's own data and settings, else `-data-<hash>`, `-settings-<hash>`.

    `manifest` is the hash of the data's manifest; None stands for the model's own data.
    """
    paths = RunPaths(model)
    data = structured.find(paths.data, DataRecord)
    own_data = data and data.manifest
    variant = f"-data-{manifest[:8]}" if manifest and own_data and manifest != own_data else ""
    config = _own_config(paths.config, _time(paths.config))
    own = None if config is None else evaluation_settings(config)
    # Positions have a word of their own in the name.
    now = {key: value for key, value in settings.items() if key != "positions"}
    if own is None or now == {key: value for key, value in own.items() if key != "positions"}:
        return variant
    return f"{variant}-settings-{hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()[:8]}"


def describe_variant(stem: str) -> str:
    """Return what the name of an evaluation without suffix says of other data and settings, in words; "" for the run's own."""
    match = _VARIANT.search(stem)
    data, settings = match.groups() if match else (None, None)
    return ", ".join([f"data {data}"] * bool(data) + [f"settings {settings}"] * bool(settings))


def _features_hash(features: str) -> str:
    try:
        return weights_hash(features)
    except (ConfigError, CheckpointError):  # the evaluation says so; no result has been measured in it
        return f"unreadable: {features}"


def _time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=256)  # a reproduction asks for every cell of its tables
def _own_config(config: Path, changed: int) -> Config | None:
    if not changed:
        return None
    try:
        return load_config(str(config))
    except ConfigError:  # the command that needs it says so
        return None
