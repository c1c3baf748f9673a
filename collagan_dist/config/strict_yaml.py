"""YAML as people mean it: `1e-4` is a number, a duplicate key is an error, a tag is an error, lines are known.

YAML 1.1 as `yaml.safe_load` reads it takes `1e-4` for a string, `on` for true and the last of two equal keys.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import yaml

from collagan_dist.errors import ConfigError

_INT = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)

Lines = dict[tuple[str, ...], int]


def read(path: str | Path, what: str, hint: str) -> str:
    """The text of a YAML file. Raises ConfigError that says what could not be read, and how to mend it."""
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not text (UTF-8)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {what} ({error.strerror}); {hint}") from None


def load(text: str, where: str, scalar: bool = False) -> tuple[Any, Lines]:
    """Plain data of a YAML document and the line number of each key path.

    The document must be a mapping unless `scalar`. Raises ConfigError with `where` and the line.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _plain_event(event, where)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from None
    lines: Lines = {}
    data = _plain(node, where, (), lines) if node is not None else None
    if scalar:
        return data, lines
    if data is None:
        return {}, lines
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: must be a mapping of keys to values")
    return data, lines


def assignment(item: str) -> tuple[tuple[str, ...], Any]:
    """(key path, value) of a command line's `--set a.b=c`. Raises ConfigError."""
    key, equals, value = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {item}: must read key=value, as in --set schedule.batch=32")
    return tuple(key.strip().split(".")), load(value, f"--set {item}", scalar=True)[0]


def dump(tree: Any) -> str:
    """YAML text that `load` reads back as the same data."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None)


def _plain_event(event: yaml.Event, where: str) -> None:
    """Refuse what a configuration needs not and an attacker can use: tags, anchors and their references."""
    place = f"{where}:{event.start_mark.line + 1}" if event.start_mark else where
    if (tag := getattr(event, "tag", None)) is not None:
        raise ConfigError(f"{place}: YAML tags are not allowed ({tag})")
    if (anchor := getattr(event, "anchor", None)) is not None:
        raise ConfigError(f"{place}: YAML anchors and references are not allowed ({anchor})")


def _plain(node: yaml.Node, where: str, path: tuple[str, ...], lines: Lines) -> Any:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if key in result:
                raise ConfigError(
                    f"{where}:{key_node.start_mark.line + 1}: key {'.'.join((*path, key))} is given twice"
                )
            lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = _plain(value, where, (*path, key), lines)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, where, path, lines) for child in node.value]
    assert isinstance(node, yaml.ScalarNode)
    return _scalar(node, f"{where}:{line}")


def _scalar(node: yaml.ScalarNode, place: str) -> Any:
    text: str = node.value
    if node.style in ("'", '"'):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and math.isinf(float(text))):
        raise ConfigError(f"{place}: {text} is not a finite number")
    return float(text) if _FLOAT.fullmatch(text) else text
