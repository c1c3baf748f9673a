"""`collagan config`: a configuration with all its keys, what a key means, its JSON schema, what differs between two."""

from __future__ import annotations

import argparse
import json

from collagan_dist.errors import ConfigError

HELP = "print a configuration with all its keys, what a key means, the JSON schema, or what differs between two"
EXAMPLE = """collagan config demo
         collagan config demo --explain schedule.adv_from
         collagan config demo --diff stable"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="preset name or YAML file; not needed for --explain and --schema"
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--explain", metavar="KEY", help="print type, range, default, value and meaning of a key, or the keys of a section")  # fmt: skip
    one.add_argument("--schema", action="store_true", help="print the JSON schema, for editors and other programs")
    one.add_argument("--diff", metavar="OTHER", help="print the keys in which another preset or YAML file differs")
    one.add_argument("--reference", action="store_true", help="print the reference of all keys, in Markdown")


def run(args: argparse.Namespace) -> None:
    from collagan_dist.config import reference
    from collagan_dist.config.load import load_config, preset_names

    if args.schema:
        print(json.dumps(reference.schema(), indent=1, ensure_ascii=False))
    elif args.reference:
        print(reference.reference_page(), end="")
    elif args.explain:
        config = load_config(args.config) if args.config else None
        print(reference.explain(args.explain, config, args.config or ""))
    elif args.config is None:
        raise ConfigError(f"name a YAML file or a preset: {', '.join(preset_names())}")
    elif args.diff:
        _print_differences(args.config, args.diff)
    else:
        print(reference.commented_yaml(load_config(args.config), args.config), end="")


def _print_differences(one: str, other: str) -> None:
    from collagan_dist.config.load import config_to_dict, leaf_differences, load_config
    from collagan_dist.config.reference import inline

    found = leaf_differences(config_to_dict(load_config(one)), config_to_dict(load_config(other)))
    rows = [(key, *map(inline, values)) for key, *values in found]
    widths = [max(map(len, column)) for column in zip(("key", one, other), *rows, strict=True)]
    for row in (("key", one, other), *rows) if rows else ():
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not rows:
        print(f"{one} and {other} are equal")
