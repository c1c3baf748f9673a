"""Whose a folder is: a start writes only where a run of this program is, or nothing that it would overwrite or mix with."""

from __future__ import annotations

import re
from pathlib import Path

from collagan_dist import structured
from collagan_dist.errors import ConfigError, mark_on_all_ranks
from collagan_dist.runs.layout import MANIFEST_FILE, STATE_FILE, RunPaths
from collagan_dist.runs.lease import parse_owner

# What may lie in a run folder before its first start: logs, marks of batch scripts, and what a shell redirected there.
_BEFORE_THE_FIRST_START = re.compile(r"\..*|logs|requeue|failed|.*\.(log|txt|out|err)")


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
    paths = RunPaths(folder)
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        text = f"{folder}: the name is not UTF-8, so no checkpoint could be read there; give another --run"
        raise mark_on_all_ranks(ConfigError(text)) from None
    # Checked first: a run that exists may hold anything that people put beside it.
    if not folder.is_dir() or _is_run(paths):
        return
    strange = sorted(path.name for path in folder.iterdir() if not _BEFORE_THE_FIRST_START.fullmatch(path.name))
    if strange:
        names = ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
        raise mark_on_all_ranks(ConfigError(f"{folder}: holds something that is no run ({names}); give another --run"))


def _is_run(paths: RunPaths) -> bool:
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
