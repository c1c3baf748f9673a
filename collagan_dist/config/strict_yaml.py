"""Strict YAML: files are parsed into plain data and checked against typed sections.

Errors name file, line and the nearest valid key. Anchors, tags, repeated keys and numbers that are not finite are refused.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from collagan_dist import files, structured
from collagan_dist.errors import ConfigError
from collagan_dist.urls import HINT, has_secret, redact_value

# Key path: its line number in the file, or the command-line argument that set it.
Lines = Mapping[tuple[str, ...], int | str]
M = TypeVar("M", bound="Section")
# Parsing takes a time that grows with the square of the depth, and some 10 microseconds a byte.
_MAX_BYTES, _MAX_DEPTH, _MAX_DIGITS = 1 << 17, 32, 100
_MAX_PROBLEMS = 20  # that a message names

# YAML 1.1, as `yaml.safe_load` reads it, takes `1e-4` for a string, `on` for true, `012` for octal and the last of two equal
# keys. So only its syntax is used, and scalars are converted here.
_INT = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)


class Section(BaseModel):
    """A group of settings with fixed keys and types. Instances cannot be changed."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def read_text(path: str | Path, what: str, hint: str) -> str:
    """Return the text of the YAML file `path`, which errors call `what`. Raises ConfigError that ends with `hint`."""
    try:
        return files.read_regular(Path(path), _MAX_BYTES).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text (UTF-8)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {what} ({error.strerror}); {hint}") from None


def load(text: str, where: str, scalar: bool = False) -> tuple[Any, dict[tuple[str, ...], int]]:
    """Parse a YAML document; return its plain data and the line number of each key path.

    The document must be a mapping unless `scalar`. Errors name `where` and the line. Raises ConfigError.
    """
    _check_size(text, where)
    depth = 0
    try:
        # Before composing, which resolves references: nested ones grow exponentially ("billion laughs").
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _refuse_tags_and_anchors(event, where)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ConfigError(f"{where}: is nested more than {_MAX_DEPTH} deep")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    # PyYAML converts escapes and version numbers by Python's own functions.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from None
    lines: dict[tuple[str, ...], int] = {}
    data = _to_data(node, where, (), lines) if node is not None else None
    if not scalar and not isinstance(data, dict | None):
        raise ConfigError(f"{where}: must be a mapping of keys to values")
    return data if scalar else data or {}, lines


def _check_size(text: str, where: str) -> None:
    if len(text) > _MAX_BYTES:
        raise ConfigError(f"{where}: has {len(text)} characters, more than {_MAX_BYTES}")
    try:
        # Also brackets in quotes that YAML alone knows: before the scanner, which looks ahead over all of them.
        structured.check_depth(text.encode("utf-8", "replace"), where)
    except structured.Malformed as error:
        raise ConfigError(str(error)) from None


def parse_assignment(item: str) -> tuple[tuple[str, ...], Any]:
    """Return (key path, value) of a command line's `--set a.b=c`. Raises ConfigError."""
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {item}: must read key=value, as in --set schedule.batch=32")
    return tuple(key.strip().split(".")), load(value, f"--set {item}", scalar=True)[0]


def dump(tree: Any) -> str:
    """Return YAML text that `load` reads back as the same data."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that `load` would take for a number or a constant: more of them than PyYAML does."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        plain = data.lower() in _CONSTANTS or any(one.fullmatch(data) for one in (_INT, _FLOAT, _NOT_FINITE))
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="'" if plain else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def _refuse_tags_and_anchors(event: yaml.Event, where: str) -> None:
    place = f"{where}:{event.start_mark.line + 1}" if event.start_mark else where
    if (tag := getattr(event, "tag", None)) is not None:
        raise ConfigError(f"{place}: YAML tags are not allowed ({tag})")
    if (anchor := getattr(event, "anchor", None)) is not None:
        raise ConfigError(f"{place}: YAML anchors and references are not allowed ({anchor})")


def _to_data(node: yaml.Node, where: str, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in result:
                raise ConfigError(f"{where}:{line}: key {'.'.join((*path, key))} is given twice")
            lines[(*path, key)] = line
            result[key] = _to_data(value, where, (*path, key), lines)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_to_data(child, where, (*path, str(number)), lines) for number, child in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, f"{where}:{node.start_mark.line + 1}")


def _scalar(node: yaml.ScalarNode, place: str) -> Any:
    text: str = node.value
    if "\0" in text:
        raise ConfigError(f"{place}: a NUL is part of no name and no value")
    if has_secret(text):
        raise ConfigError(f"{place}: {redact_value(text)}: {HINT}")
    if node.style in ("'", '"'):
        return text  # quotes make a string of anything
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if _INT.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ConfigError(f"{place}: a number of {len(text)} digits is too long")
        return int(text)
    if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and math.isinf(float(text))):
        raise ConfigError(f"{place}: {text} is not a finite number")
    return float(text) if _FLOAT.fullmatch(text) else text


def validate(model: type[M], tree: Mapping[str, Any], where: str, lines: Lines | None = None) -> M:
    """Return a checked `model` from plain data. `lines` are the line numbers of its keys. Raises ConfigError."""
    try:
        # By way of JSON: pydantic's strict mode takes a list for a tuple from JSON, but not from Python objects.
        return model.model_validate_json(json.dumps(tree, ensure_ascii=False).encode())
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 40) : error.end].rpartition('"')[2]
        raise ConfigError(f"{where}: {near!r}… is not UTF-8; give the file or folder another name") from None
    except ValidationError as error:
        found = structured.problems(error)
        texts = [_explain(model, one, where, lines or {}) for one in found[:_MAX_PROBLEMS]]
        more = len(found) - len(texts)
        raise ConfigError("\n".join(texts + [f"and {more} more"] * (more > 0))) from None


def _explain(model: type[BaseModel], problem: structured.Problem, where: str, lines: Lines) -> str:
    """One line: where, key, what is wrong, what was given."""
    path, text = problem.path, problem.text
    if isinstance(problem.value, dict) and (named := re.match(r"([\w.]+): ", text)):
        # A validator of an entire section has the section's path; its message begins with the key that it means.
        path, text = (*path, *named[1].split(".")), text[named.end() :]
    # A key that is missing, or an item of a list, has no line: that of the section or list around it.
    line = next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)
    place = line if isinstance(line, str) else f"{where}:{line}" if line else where
    key = ".".join(path)
    if problem.kind in structured.UNKNOWN_KEY:
        return f"{place}: unknown key {key}; {_hint(model, path)}"
    if problem.kind == "missing":
        return f"{place}: {key} is missing"
    return f"{place}: {key + ': ' if key else ''}{text}{structured.given(problem) if path else ''}"


def _hint(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """Suggest the nearest key of the same section, else the same name in another section, else list the valid keys."""
    here = _keys_at(model, path[:-1])
    near = difflib.get_close_matches(path[-1], here, 1)
    # "lr" alone is close to no key of the root, but is a key of optim.generator.
    near = near or [key for key in _all_keys(model) if key.endswith("." + path[-1])][:1]
    return f"did you mean {near[0]}?" if near else f"valid here: {', '.join(here)}"


def _keys_at(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    here: Any = model
    for key in path:
        if get_origin(here) is dict:
            here = get_args(here)[1]  # a mapping of names, as loss.weights: each value is a section
        else:
            field = here.model_fields.get(key) if _is_model(here) else None
            here = field.annotation if field else None
    return list(here.model_fields) if _is_model(here) else []


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def check_key(model: type[BaseModel], path: tuple[str, ...], where: str) -> None:
    """Raise ConfigError, which names the nearest key, if a model has no key at `path`, also below its mappings of names."""
    here: Any = model
    for number, name in enumerate(path):
        if get_origin(here) is dict:
            here = get_args(here)[1]
        elif not _is_model(here):
            raise ConfigError(f"{where}: {'.'.join(path[:number])} is a value, not a section")
        elif name in here.model_fields:
            here = here.model_fields[name].annotation
        else:
            # Of a misspelt section, the full key; inside of one, the nearest key there.
            near = [] if number else difflib.get_close_matches(".".join(path), _all_keys(model), 1)
            hint = f"did you mean {near[0]}?" if near else _hint(model, path[: number + 1])
            raise ConfigError(f"{where}: there is no key {'.'.join(path)}; {hint}")


def leaf_keys(model: type[BaseModel]) -> list[str]:
    """Return the dotted keys of a model that hold values, not sections."""
    every = _all_keys(model)
    return [key for key in every if not any(other.startswith(f"{key}.") for other in every)]


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if _is_model(field.annotation):
            keys += _all_keys(field.annotation, f"{prefix}{name}.")
    return keys
