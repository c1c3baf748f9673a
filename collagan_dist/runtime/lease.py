"""RUN/lease: the number of the newest start of a run. Only that one writes."""

from __future__ import annotations

import secrets
from pathlib import Path

from collagan_dist import files
from collagan_dist.errors import ClusterError


class Lease:
    """This start's generation of a run folder; taken by rank 0, before anything is written."""

    def __init__(self, run: Path) -> None:
        self._path = run / "lease"
        self.generation = int(self._read().split()[0]) + 1
        # The token tells two starts apart that took the same number at the same moment.
        self._mine = f"{self.generation} {secrets.token_hex(8)}"
        files.write_text(self._path, self._mine + "\n")

    def check(self) -> None:
        """Raises ClusterError when a newer start owns the run folder."""
        if (newest := self._read()) != self._mine:
            raise ClusterError(
                f"{self._path.parent}: start {newest.split()[0]} of this run has taken over from this one "
                f"(start {self.generation}); nothing was written"
            )

    def _read(self) -> str:
        try:
            text = self._path.read_text().strip()
        except FileNotFoundError:
            return "0"
        return text if text.split() and text.split()[0].isdigit() else "0"
