"""RUN/lease: the number of the newest start of a run. Only that one writes."""

from __future__ import annotations

from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ClusterError


class Lease:
    """This start's generation of a run folder; taken by rank 0, before anything is written."""

    def __init__(self, run: Path) -> None:
        self._path = run / "lease"
        self.generation = self._read() + 1
        files.write_text(self._path, f"{self.generation}\n")

    def check(self) -> None:
        """Raises ClusterError when a newer start owns the run folder."""
        if (newest := self._read()) != self.generation:
            raise ClusterError(
                f"{self._path.parent}: start {newest} of this run has taken over from this one (start {self.generation}); nothing was written"
            )

    def _read(self) -> int:
        try:
            return int(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return 0
