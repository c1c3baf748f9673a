"""Where the results of an evaluation go, and whether they can go there: asked before anything is scored."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collagan_dist import shell, structured
from collagan_dist.errors import ConfigError
from collagan_dist.runs.layout import RunPaths


class _Result(structured.Record):
    """What a result says of its place."""

    manifest: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class Target:
    """The place of a model's results: RUN/evaluation, or the folder `out`.

    `variant` is what evaluation_variant says of data and settings, `manifest` the hash of the data's manifest.
    """

    model: Path
    out: Path | None
    positions: str
    manifest: str
    variant: str

    @property
    def folder(self) -> Path:
        return self.out or RunPaths(self.model).evaluations

    def path(self, split: str, hole: str, blend: str) -> Path:
        """Return the JSON file of a result."""
        paths = RunPaths(self.model)
        name = paths.evaluation(split, hole, blend, self.positions, self.variant).name
        # An exported folder has no data of its own: those of its first evaluation count as such.
        if not self.variant and not paths.data.is_file():
            former = structured.find(self.folder / name, _Result)
            if former and former.manifest not in (None, self.manifest):
                name = paths.evaluation(split, hole, blend, self.positions, f"-data-{self.manifest[:8]}").name
        return self.folder / name

    def about(self) -> dict[str, Any]:
        """Return what a result outside of the model's folder says of it: the model's path."""
        return {} if self.out is None else {"model": str(self.model.resolve())}

    def check(self, results: list[Path]) -> None:
        """Raise ConfigError where results cannot be written, or would replace another model's or another program's files."""
        for folder in (self.folder,) if self.out else (self.model, self.folder):
            _check_writable(folder, self.model)
        for path in results if self.out else ():
            found = structured.find(path, _Result)
            if path.exists() and (found is None or found.model != str(self.model.resolve())):
                raise ConfigError(f"{path}: is no evaluation of {self.model}; give another --out")


def _check_writable(folder: Path, model: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Rights alone do not say it: quotas, file servers and read-only mounts may forbid it, too.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{folder}: results cannot be written there ({error.strerror}); give --out DIR, or export the model first: "
            f"{shell.collagan('export', model, '--out', 'DIR')}"
        ) from None
