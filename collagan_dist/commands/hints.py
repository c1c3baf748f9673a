"""A parser of arguments that names the nearest command, option or configuration key of one that does not exist."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

_MAY_BE_EMPTY = ("--tables", "--figures", "--slurm")
# Commands whose --set changes a key of the configuration.
_CONFIGURED = ("train", "plan", "evaluate", "reproduce", "sweep")


class HintingParser(argparse.ArgumentParser):
    """An ArgumentParser whose errors about unknown words say what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2; a command that does not exist is answered by the nearest one."""
        wrong = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if wrong and (near := difflib.get_close_matches(wrong[1], self.commands(), 1)):
            message = f"there is no command {wrong[1]!r}; did you mean {near[0]}?"
        super().error(message)

    def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Return the parsed arguments. Ends with exit code 2 for a word that no option takes, with the nearest option."""
        words = list(sys.argv[1:] if args is None else args)
        for before, word in zip(["", *words], words, strict=False):
            is_empty = not word or re.fullmatch(r"--[\w-]+=", word)  # as a path it would be the current folder
            if is_empty and (word.rstrip("=") or before) not in _MAY_BE_EMPTY:
                what = word.rstrip("=") or (f"the word after {before}" if before.startswith("--") else "an argument")
                self.commands().get(words[0], self).error(f"{what} is empty; is a variable of the shell not set?")
        known, unknown = self.parse_known_args(words, namespace)
        if unknown:
            # The usage of the command, not that of all of them.
            one = self.commands().get(known.command, self)
            hints = [
                hint for word in unknown if word.startswith("--") for hint in one.hints(known.command, word, words)
            ]
            one.error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *hints]))
        return known

    def commands(self) -> dict[str, HintingParser]:
        """Return the parsers of the commands by name."""
        groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return {name: parser for group in groups for name, parser in group.choices.items()}

    def hints(self, command: str, word: str, words: Sequence[str]) -> list[str]:
        """Return a sentence about an unknown option, or none. `words` are all that were given."""
        name, equals, value = word.partition("=")
        if not equals:
            after = words[words.index(word) + 1 :][:1] if word in words else []
            value = "".join(one for one in after if not one.startswith("--"))
        options = [text for action in self._actions for text in action.option_strings if text.startswith("--")]
        keys = _configuration_keys(command) if command in _CONFIGURED else {}
        near = difflib.get_close_matches(name, [*keys, *options], 1, 0.7)
        if not near:
            return []
        if near[0] not in keys:
            return [f"did you mean {near[0]}?"]
        given = [f"--set {key}={value or '...'}" for key in keys[near[0]]]
        return [f"for a key of the configuration use {' or '.join(given)}"]


def _configuration_keys(command: str) -> dict[str, list[str]]:
    """Return the options that a key of the configuration may be mistaken for, each with its keys: --schedule.steps and --steps."""
    from collagan_dist.config.strict_yaml import leaf_keys  # here: pydantic would delay --help
    from collagan_dist.config.tree import Config

    found: dict[str, list[str]] = {}
    for key in leaf_keys(Config):
        if command == "evaluate" and not key.startswith(("evaluate.", "runtime.")):  # all else is the run's
            continue
        for option in dict.fromkeys((f"--{key}", f"--{key.rpartition('.')[2]}")):
            found.setdefault(option, []).append(key)
    return found
