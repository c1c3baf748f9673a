"""What the keys of a configuration mean, from config/tree.py: JSON schema, explanation of a key, reference page, commented YAML."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from collagan_dist.config import strict_yaml
from collagan_dist.config.load import config_to_dict, get_nested, leaf_differences, validate_config
from collagan_dist.config.tree import Config, Model
from collagan_dist.errors import ConfigError

ANY_NAME = "<task>"  # stands in a key for the names of a mapping, as in loss.weights.<task>.adv
_WIDTH = 100  # columns of an explanation
_JSON_TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
_HEAD = """# Configuration

Every key of a configuration with its type, its default and its meaning. A preset or a YAML file gives some of them, `--set a.b=c`
changes one. `collagan config demo` prints all keys of a preset, `collagan config demo --explain KEY` one of them, and
`collagan config demo --diff stable` what differs.

For an editor that knows YAML schemas: `collagan config --schema > config.schema.json`, and as first line of a YAML file beside it
`# yaml-language-server: $schema=config.schema.json`.

This page is written by `make reference`, from `collagan_dist/config/tree.py`. `<task>` is the name of a task.
"""


@dataclass(frozen=True)
class ConfigKey:
    """One key, or a section of keys. `kind` says type and range in words; a section has none."""

    path: str
    kind: str
    default: Any
    meaning: str

    @property
    def is_section(self) -> bool:
        return not self.kind


def schema() -> dict[str, Any]:
    """Return the JSON schema of a YAML file of settings, for editors and other programs."""
    tree = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    _join_lines(tree)
    # A λ that is not given has the paper's value (load.validate_config).
    del tree["$defs"]["TaskWeights"]["required"]
    return tree


def all_keys() -> list[ConfigKey]:
    """Return every key and section in the order of config/tree.py."""
    tree = schema()
    return list(_keys(tree, tree["$defs"], ""))


def explain(name: str, config: Config | None, source: str) -> str:
    """Return what a key means, with its value in `config` from `source`; of a section its keys. Raises ConfigError."""
    keys = {key.path: key for key in all_keys()}
    key = _find(name, keys)
    lines = [name, *(line for part in key.meaning.split("\n") for line in _wrapped(part))]
    if key.is_section:
        inside = (key.path, f"{key.path}.{ANY_NAME}")
        below = [other for other in keys.values() if other.path.rpartition(".")[0] in inside]
        width = max(len(other.path) for other in below)
        return "\n".join([*lines, "", *(f"  {other.path:{width}}  {_first_sentence(other)}" for other in below)])
    section = keys.get(key.path.rpartition(".")[0])
    lines += ["", f"  type: {key.kind}", f"  default: {_default(key)}"]
    if config is not None:
        value = get_nested(config_to_dict(config), *name.split("."))
        lines.append(f"  {source}: {inline(value) if ANY_NAME not in name else 'depends on the task'}")
    if section is not None:
        lines += _wrapped(f"section {section.path}: {_one_line(section.meaning)}")
    return "\n".join(lines)


def reference_page() -> str:
    """Return docs/configuration.md."""
    parts, keys = [_HEAD], all_keys()
    tops = [key for key in keys if "." not in key.path and key.is_section]
    for top in tops:
        inside = [key for key in keys if key.path.startswith(f"{top.path}.") and not key.is_section]
        parts.append(f"\n## {top.path}\n\n{_one_line(top.meaning)}\n\n{_table(inside)}")
    rest = [key for key in keys if "." not in key.path and not key.is_section]
    parts.append(f"\n## Keys without a section\n\n{_table(rest)}")
    return "".join(parts)


def commented_yaml(config: Config, source: str) -> str:
    """Return all keys of a configuration as YAML that gives the same one. A comment on a value that is no default has the default."""
    differing = {key: default for key, default, _ in leaf_differences(default_tree(config), config_to_dict(config))}
    lines = _yaml_lines(config_to_dict(config), differing, "")
    return (
        "\n".join([f"# All keys of {source}. A comment has the default of a key that differs from it.", *lines]) + "\n"
    )


def default_tree(config: Config) -> dict[str, Any]:
    """Return the default of each key of a configuration; the λ are the paper's for its tasks."""
    tree = config_to_dict(validate_config({"model": {"tasks": list(config.model.tasks)}}, "the defaults"))
    tree["model"]["tasks"] = list(Model().tasks)
    return tree


def inline(value: Any) -> str:
    """Return a value as YAML in one line."""
    text = strict_yaml.dump([value]).strip()
    if "\n" in text:  # long texts are wrapped
        return json.dumps(value, ensure_ascii=False)
    return text[1:-1] if text.startswith("[") else text.removeprefix("- ")


def _yaml_lines(tree: dict[str, Any], differing: dict[str, Any], path: str) -> Iterator[str]:
    indent = "  " * (path.count("."))
    for name, value in tree.items():
        key = f"{path}{name}"
        if isinstance(value, dict) and value:
            yield f"{indent}{name}:"
            yield from _yaml_lines(value, differing, f"{key}.")
        else:
            yield f"{indent}{name}: {inline(value)}" + (
                f"  # default: {inline(differing[key])}" if key in differing else ""
            )


def _keys(node: dict[str, Any], definitions: dict[str, Any], prefix: str) -> Iterator[ConfigKey]:
    for name, child in node["properties"].items():
        path, meaning = f"{prefix}{name}", child.get("description", "")
        if section := _section(child, definitions):
            yield ConfigKey(path, "", None, meaning or section.get("description", ""))
            yield from _keys(section, definitions, f"{path}.")
        elif section := _section(child.get("additionalProperties"), definitions):
            yield ConfigKey(path, "", None, meaning)
            yield from _keys(section, definitions, f"{path}.{ANY_NAME}.")
        else:
            yield ConfigKey(path, _kind(child), child.get("default"), meaning)


def _section(node: Any, definitions: dict[str, Any]) -> dict[str, Any] | None:
    reference = node.get("$ref") if isinstance(node, dict) else None
    return definitions[reference.rpartition("/")[2]] if reference else None


def _kind(node: dict[str, Any]) -> str:
    """Return type and range of a key in words."""
    if "anyOf" in node:
        return ", or ".join(_kind(one) for one in node["anyOf"])
    if "enum" in node or "const" in node:
        return f"one of {', '.join(inline(value) for value in node.get('enum', [node.get('const')]))}"
    if node["type"] == "array":
        if items := node.get("prefixItems"):
            kinds = dict.fromkeys(map(_kind, items))
            return f"list of {len(items)}: {', '.join(kinds)}" + (" each" if len(kinds) == 1 else "")
        return f"list of {_kind(node['items'])}"
    if node["type"] == "object":
        return f"mapping of names to {_kind(node['additionalProperties'])}"
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    start = f" from {low:g}" if low is not None else f" above {above:g}" if above is not None else ""
    end = f" to {high:,}" if high is not None else f"{' to' * bool(start)} below {below:g}" if below is not None else ""
    return _JSON_TYPES[node["type"]] + start + (end or (" on" if low is not None else ""))


def _find(name: str, keys: dict[str, ConfigKey]) -> ConfigKey:
    for path, key in keys.items():
        one, other = path.split("."), name.split(".")
        if len(one) == len(other) and all(a in (b, ANY_NAME) for a, b in zip(one, other, strict=True)):
            return key
    near = [path for path in keys if path.endswith(f".{name}")] or difflib.get_close_matches(name, keys, 3)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else "`collagan config --explain schedule` lists the keys of a section"
    )
    raise ConfigError(f"--explain {name}: there is no such key; {hint}")


def _default(key: ConfigKey) -> str:
    # Only the weights have no constant one.
    return "section 4.2's, by the number of tasks" if ANY_NAME in key.path else inline(key.default)


def _table(keys: Sequence[ConfigKey]) -> str:
    rows = [(f"`{key.path}`", key.kind, f"`{_default(key)}`" if ANY_NAME not in key.path else _default(key), _one_line(key.meaning))
            for key in keys]  # fmt: skip
    lines = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    return "".join(f"| {line} |\n" for line in ("key | type | default | meaning", "--- | --- | --- | ---", *lines))


def _first_sentence(key: ConfigKey) -> str:
    # Abbreviations end with a dot too: "eq. 1".
    return re.split(r"(?<!\beq)[.] ", _one_line(key.meaning))[0].rstrip(".:")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _join_lines(node: Any) -> None:
    """Write each description in lines of its paragraphs: editors wrap them themselves."""
    if isinstance(node, dict):
        if isinstance(text := node.get("description"), str):
            node["description"] = "\n".join(_one_line(part) for part in text.split("\n\n"))
        for child in node.values():
            _join_lines(child)
    elif isinstance(node, list):
        for child in node:
            _join_lines(child)
