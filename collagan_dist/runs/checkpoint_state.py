"""state.json of a checkpoint: what it says, how older ones are read, and how its configuration differs from the present one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collagan_dist.config.load import differences, identity_keys, validate_config
from collagan_dist.errors import CheckpointError, ConfigError


def stored_identity(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What was learned, from a stored configuration of any age. Raises CheckpointError that names a key of a newer program."""
    try:
        config = validate_config(state["config"], f"{where}: the stored configuration")
    except ConfigError as error:
        raise CheckpointError(
            f"{error}\nit is of another version of collagan_dist (by its own word {state.get('version')}); use that one, "
            "or --allow-config-change to go on with the present configuration"
        ) from None
    return identity_keys(config, state["manifest"], state["parser"])


def migrate_state(state: dict[str, Any]) -> dict[str, Any]:
    """A state of any format as one of the present format. Format 1 kept the parser's hash among its identity keys."""
    if state["format"] == 1:
        return {**state, "format": 2, "parser": state["identity"]["model"]["gfc"]["parser"]}
    return state


def read_state(path: Path, state: dict[str, Any]) -> tuple[int, list[int], dict[str, Any]]:
    """(step, numbers of batches left out, the whole state in the present format). Raises CheckpointError."""
    try:
        state = migrate_state(state)
        step, skipped = state["step"], state["skipped_batches"]
        if not all(isinstance(number, int) and number >= 0 for number in [step, *skipped]):
            raise ValueError("step or skipped_batches are no numbers")
        if not isinstance(state["config"], dict) or not {"manifest", "parser"} <= state.keys():
            raise ValueError("its configuration is missing")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: state.json is not one of ours ({error!r})") from None
    return step, skipped, state


def config_changes(path: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Lines "key: then -> now" of what is learned otherwise. Raises CheckpointError where the stored keys are unknown."""
    return differences(stored_identity(state, str(path)), now)
