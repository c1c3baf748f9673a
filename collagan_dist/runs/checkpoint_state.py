"""state.json of a checkpoint: how far the run had come, and the configuration it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collagan_dist import structured
from collagan_dist.config.load import differences, identity_keys, validate_config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs.layout import STATE_FILE

FORMAT = 2  # written; older ones are read, newer ones refused


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return state.json in the present format; its bytes are not checked. Raises OSError, ValueError, KeyError or TypeError."""
    return migrate_state(structured.read_json(checkpoint / STATE_FILE))


def migrate_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of any format in the present format."""
    if state["format"] == 1:  # which had the parser's hash among its identity keys
        state = {**state, "format": 2, "parser": state["identity"]["model"]["gfc"]["parser"]}
    return {"bad_row": [], **state}  # which early ones of format 2 lack


def parse_state(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of checkpoint `path` in the present format. Raises CheckpointError."""
    try:
        state = migrate_state(state)
        numbers = [state["step"], *state["skipped_batches"], *state["bad_row"]]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("step, skipped_batches or bad_row are no numbers")
        if not isinstance(state["config"], dict) or not {"manifest", "parser"} <= state.keys():
            raise ValueError("its configuration is missing")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {STATE_FILE} is not one of ours ({error!r})") from None
    return state


def stored_identity(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the identity keys of a stored configuration. Raises CheckpointError that names a key of a newer program."""
    try:
        # Read anew, not compared as stored: keys that were added since have their defaults.
        config = validate_config(state["config"], f"{where}: the stored configuration")
    except ConfigError as error:
        raise CheckpointError(
            f"{error}\nit is of another version of collagan_dist ({state.get('version')}, as it says); use that one, "
            "or --allow-config-change to go on with the present configuration"
        ) from None
    return identity_keys(config, state["manifest"], state["parser"])


def config_changes(path: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return lines "key: then -> now" of identity keys that differ. Raises CheckpointError for unknown stored keys."""
    return differences(stored_identity(state, str(path)), now)
