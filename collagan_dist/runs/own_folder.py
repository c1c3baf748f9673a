"""Whether a folder or a page may be written: a command writes only where its own work is, or nothing that it would overwrite or mix with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from collagan_dist import files, structured
from collagan_dist.errors import ConfigError, mark_on_all_ranks
from collagan_dist.runs.layout import MANIFEST_FILE, STATE_FILE, RunPaths
from collagan_dist.runs.lease import parse_owner

# What may lie in an output folder before its first start: logs, marks of batch scripts, and what a shell redirected there.
_BEFORE_THE_FIRST_START = re.compile(r"\..*|logs|requeue|failed|.*\.(log|txt|out|err)")

# What page.html begins with, within its first bytes.
_OWN_TITLE, _HEAD_BYTES = "· collagan report</title>".encode(), 4096


class _World(structured.Record):
    world_size: int


class _Data(structured.Record):
    manifest: str


class _Trial(structured.Record):
    number: int


def check_own_run(folder: Path) -> None:
    """Raise ConfigError where a folder holds something that is no run of this program, or could not be read again.

    An empty or absent one is fine.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        text = f"{folder}: the name is not UTF-8, so no checkpoint could be read there; give another --out"
        raise mark_on_all_ranks(ConfigError(text)) from None
    _refuse_strangers(folder, is_run, "no run")


def check_own_out(out: Path, is_ours: Callable[[Path], bool], kind: str) -> None:
    """Raise ConfigError where the folder of a sweep or a reproduction holds something else, or a page that it would replace.

    `is_ours` knows a folder of its `kind`.
    """
    _refuse_strangers(out, is_ours, f"no {kind}")
    check_own_page(RunPaths(out).report, "another --out")


def _refuse_strangers(folder: Path, is_ours: Callable[[Path], bool], what: str) -> None:
    # Asked first: a folder of ours may hold anything that people put beside it.
    if not folder.is_dir() or is_ours(folder):
        return
    strange = sorted(path.name for path in folder.iterdir() if not _BEFORE_THE_FIRST_START.fullmatch(path.name))
    if strange:
        names = ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
        raise mark_on_all_ranks(ConfigError(f"{folder}: holds something that is {what} ({names}); give another --out"))


def check_own_page(target: Path, other: str = "--out FILE") -> None:
    """Raise ConfigError where a file is there that is no page of ours; `other` is what to give instead."""
    try:
        head = files.read_regular(target, _HEAD_BYTES, start=_HEAD_BYTES)
    except OSError:
        if not target.exists() or target.is_dir():  # a folder is said when it is written
            return
        head = b"unknown"
    # An empty file is what `mktemp` leaves for a name.
    if head and _OWN_TITLE not in head:
        raise ConfigError(f"{target}: is there and was not written by `collagan report`; give {other}, or move it away")


def is_run(folder: Path) -> bool:
    """Return whether a start of this program has written there."""
    paths = RunPaths(folder)
    # Each of these alone, since people copy parts of runs: another program's config.yaml or metrics.jsonl is no proof.
    records = ((paths.world, _World), (paths.data, _Data), (paths.trial, _Trial))
    return (
        _is_lease(paths.lease)
        or any(structured.find(path, record) for path, record in records)
        or any(
            (paths.checkpoint(step) / name).is_file()
            for step in paths.steps_saved()
            for name in (MANIFEST_FILE, STATE_FILE)
        )
    )


def _is_lease(path: Path) -> bool:
    try:
        return path.is_file() and parse_owner(path.read_text(errors="replace")).generation > 0
    except OSError:
        return False
