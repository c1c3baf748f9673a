"""`write_report`: one HTML file about run folders, a sweep or a reproduction, with everything that it shows inside."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from collagan_dist import __version__, files
from collagan_dist.errors import DataError
from collagan_dist.report import vega
from collagan_dist.report.reproduction import is_reproduction, reproduction_content
from collagan_dist.report.run_page import runs_content
from collagan_dist.report.sweep_data import is_sweep
from collagan_dist.report.sweep_page import sweep_content
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.own_folder import check_own_page
from collagan_dist.urls import redact

# Templates and style sheet are package data beside this file.
_TEMPLATES = Path(__file__).parent
_LIBRARY = "<script></script>"  # its place in page.html
# What page.html shows where the content does not have it.
_NOTHING: dict[str, Any] = {"runs": [], "comparison": None, "reproduction": None, "sweep": None}


def write_report(paths: Sequence[Path], out: Path | None = None) -> Path:
    """Write one page about the run folders `paths`, or about one sweep or reproduction. Return its path.

    Without `out` it is report.html in the run folder, or in the folder that several runs share.
    Raises DataError for a folder that cannot be shown, ConfigError for a file that cannot be written.
    """
    # Resolved, so that a folder named twice is shown once.
    folders = list(dict.fromkeys(Path(path).resolve() for path in paths))
    if not folders:
        raise DataError("No run folder was named. Name at least one folder that holds a config.yaml.")
    target = _target(folders, out)
    check_own_page(target)
    content = _content(folders)
    if out is not None:
        files.check_file_writable(target)
    text = _render(content)
    try:
        _write(target, text)
    except OSError as error:
        raise DataError(
            f"{target}: the report cannot be written there ({error.strerror}). Name another file."
        ) from error
    return target


def _content(folders: Sequence[Path]) -> dict[str, Any]:
    kinds = ((is_reproduction, "a reproduction", reproduction_content), (is_sweep, "a sweep", sweep_content))
    for is_kind, name, content in kinds:
        for folder in filter(is_kind, folders):
            if len(folders) > 1:
                raise DataError(f"{folder}: is {name}, which has a page of its own. Name it alone.")
            return content(folder)
    return runs_content(folders)


def _render(content: dict[str, Any]) -> str:
    # Imported here: `collagan --help` must not wait for it.
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    written = datetime.now().strftime("%Y-%m-%d %H:%M")
    page = env.get_template("page.html").render(
        {**_NOTHING, **content}, written=written, version=__version__, vega_theme=vega.THEME
    )
    # Run folders may be of other versions, and are shown as they are but for credentials. The library comes after it:
    # some of its code looks like a URL with credentials.
    return redact(page).replace(_LIBRARY, f"<script>{vega.library()}</script>", 1)


def _target(folders: Sequence[Path], out: Path | None) -> Path:
    # A folder as --out gets a report.html, like a run folder.
    if out is not None:
        return out / "report.html" if out.is_dir() else out
    if len(folders) == 1:
        return RunPaths(folders[0]).report
    return Path(os.path.commonpath(folders)) / "report.html"


def _write(target: Path, text: str) -> None:
    # Renamed into place, so that whoever opens report.html sees a complete page. Not flushed to disk: it can be made again.
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")  # names may be of any bytes
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
