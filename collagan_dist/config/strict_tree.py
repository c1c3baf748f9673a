"""Typed trees that come from YAML: frozen, nothing unknown, nothing converted; errors name file, line and nearest key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from collagan_dist.errors import ConfigError

# Where a key stands: its line, or what gave it in place of the file.
Lines = Mapping[tuple[str, ...], int | str]
M = TypeVar("M", bound="Section")


class Section(BaseModel):
    """Every node of such a tree."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def validate(model: type[M], tree: Mapping[str, Any], where: str, lines: Lines | None = None) -> M:
    """A checked `model` from plain data. `lines` are the line numbers of its keys. Raises ConfigError."""
    try:
        return model.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(model, e, where, lines or {}) for e in error.errors())) from None


def _explain(model: type[BaseModel], error: Any, where: str, lines: Lines) -> str:
    path = tuple(str(part) for part in error["loc"])
    text = error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], dict) and (named := re.match(r"([\w.]+): ", text)):
        path, text = (*path, *named[1].split(".")), text[named.end() :]  # a section's own check names its key
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = line if isinstance(line, str) else f"{where}:{line}" if line else where
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{place}: unknown key {key}; {_hint(model, path)}"
    if error["type"] == "missing":
        return f"{place}: {key} is missing"
    given = f" (given: {error['input']!r})" if path and not isinstance(error["input"], dict) else ""
    return f"{place}: {key + ': ' if key else ''}{text}{given}"


def _hint(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """The nearest key beside the unknown one, the same name elsewhere, or all that is valid here."""
    here = _keys_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], here, 1)
    near = near or [key for key in _all_keys(model) if key.endswith("." + path[-1])][:1]
    return f"did you mean {near[0]}?" if near else f"valid here: {', '.join(here)}"


def _keys_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    here: Any = model
    for key in path:
        if get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            field = here.model_fields.get(key) if _is_model(here) else None
            here = field.annotation if field else None
    return list(here.model_fields) if _is_model(here) else []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
