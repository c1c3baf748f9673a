"""The configuration of a run: `tree` says what there is, `models` what the paper calls it, `load` where it comes from."""

from collagan_dist.config.load import (
    differences,
    dig,
    dump,
    identity,
    identity_hash,
    load_config,
    model_label,
    presets,
    put,
    to_yaml,
    validate,
)
from collagan_dist.config.models import MODELS, PEERS, TASK_WEIGHTS, model_settings
from collagan_dist.config.tree import Adam, Augment, Cache, Config, Evaluate, Model, Runtime, Search

__all__ = [
    "MODELS",
    "PEERS",
    "TASK_WEIGHTS",
    "Adam",
    "Augment",
    "Cache",
    "Config",
    "Evaluate",
    "Model",
    "Runtime",
    "Search",
    "differences",
    "dig",
    "dump",
    "identity",
    "identity_hash",
    "load_config",
    "model_label",
    "model_settings",
    "presets",
    "put",
    "to_yaml",
    "validate",
]
