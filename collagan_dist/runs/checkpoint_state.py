"""state.json of a checkpoint: how far the run had come, and the configuration it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from collagan_dist import structured
from collagan_dist.config.load import differences, identity_keys, validate_config
from collagan_dist.errors import CheckpointError, ConfigError
from collagan_dist.runs.layout import STATE_FILE

FORMAT = 2  # written; older ones are read, newer ones refused


Step = structured.Count


class AnyState(structured.Record):
    """What state.json of every format says."""

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1)]
    step: Step


class _State(AnyState):
    """state.json of the present format. The configuration is checked by `stored_identity`."""

    skipped_batches: list[Step]
    bad_row: list[Step]
    config: dict[str, Any]
    manifest: str
    parser: str | None
    init: str | None
    machine: dict[str, int | str] | None


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return state.json in the present format; its bytes are not checked. Raises OSError or CheckpointError."""
    try:
        state = structured.read_record(checkpoint / STATE_FILE, AnyState)
    except structured.Malformed as error:
        raise CheckpointError(str(error)) from None
    return parse_state(checkpoint, state.model_dump())


def parse_state(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of checkpoint `path` in the present format. Raises CheckpointError."""
    try:
        if state["format"] == 1:  # which had the parser's hash among its identity keys
            state = {**state, "format": 2, "parser": state["identity"]["model"]["gfc"]["parser"]}
        state = {"bad_row": [], "init": None, "machine": None, **state}  # which early ones of format 2 lack
        structured.validate(state, _State, STATE_FILE)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {STATE_FILE} is not one of ours ({error})") from None
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
    return identity_keys(config, state["manifest"], state["parser"], state["init"])


def config_changes(path: Path, state: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return lines "key: then -> now" of identity keys that differ. Raises CheckpointError for unknown stored keys."""
    return differences(stored_identity(state, str(path)), now)
