"""What sinks of trackers (W&B, MLflow) share: a thread that talks to the tracker, and the tracker's id of the run in the run folder.

A tracker may be slow or away for minutes. Training never waits for it, and goes on without it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from collagan_dist import files, structured
from collagan_dist.config import strict_yaml
from collagan_dist.errors import ConfigError
from collagan_dist.runs.layout import RunPaths
from collagan_dist.runs.tensorboard import tagged_numbers
from collagan_dist.urls import redact

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 60.0  # that the end of a start waits for the tracker
_MAX_WAITING = 20_000  # lines; one has a few hundred bytes
_MAX_WAITING_GRIDS = 20  # beyond so many waiting pieces no grid is added: one has megabytes


class TrackedRun(structured.Record):
    """RUN/<tracker>/run.json: the tracker's id of the run, and the server where it has it."""

    id: str
    server: str = ""


class TrackerSink:
    """A sink that gives all to `_open`, `_send`, `_send_grid` and `_finish` of its tracker, in a thread, in order.

    After an error of the tracker nothing more is sent in this start; one warning says so.
    """

    name: ClassVar[str]  # in log.sinks, of the extra and of the folder in RUN
    needs: ClassVar[tuple[str, ...]]  # packages that are imported

    @classmethod
    def check_installed(cls) -> None:
        """Raise ConfigError if a package of the tracker is missing."""
        for package in cls.needs:
            found = find_spec(package)  # an import would take each rank seconds
            # A folder of that name in the current one, as trackers write, is found too: as a package without a file.
            if found is None or found.origin is None:
                raise ConfigError(
                    f"log.sinks: {cls.name} needs the package {package}, which is missing; "
                    f"pip install 'collagan_dist[{cls.name}]', or leave it out of log.sinks"
                )

    def __init__(self, run: Path, step: int, is_current: Callable[[], bool] = lambda: True) -> None:
        self.run, self._is_current = run, is_current
        self.folder = RunPaths(run).tracker(self.name)
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name=f"{self.name} sink", daemon=True)
        self._thread.start()

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """Send the numbers of a line of metrics.jsonl. Events have none."""
        values = tagged_numbers(kind, record)
        if values and self._queue.qsize() < _MAX_WAITING:
            self._queue.put(lambda: self._send(step, values))

    def add_grid(self, step: int, png: bytes) -> None:
        if self._queue.qsize() < _MAX_WAITING_GRIDS:
            self._queue.put(lambda: self._send_grid(step, png))

    def close(self) -> None:
        """Wait until the tracker has everything, for a minute at most."""
        self._queue.put(None)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            logger.warning(
                "warning: %s: not all was sent to %s within a minute; metrics.jsonl has it", self.run, self.name
            )

    def _work(self) -> None:
        try:
            if self._is_current():
                self._open()
                while (send := self._queue.get()) is not None:
                    if self._is_current():
                        send()
                if self._is_current():  # else a later start goes on with it
                    self._finish()
        # Whatever it is, and libraries raise what they like: the numbers are in metrics.jsonl, and training goes on.
        except Exception as error:
            reason = redact(str(error)).strip().split("\n")[0] or type(error).__name__
            logger.warning(
                "warning: %s: %s does not take numbers (%s); those of this start are in metrics.jsonl alone from here on",
                self.run, self.name, reason,
            )  # fmt: skip

    def _tracked(self) -> TrackedRun | None:
        """Return what an earlier start has noted, so that the tracker shows one run, not one a start."""
        return structured.find(self.folder / "run.json", TrackedRun)

    def _note(self, tracked: TrackedRun) -> None:
        self.folder.mkdir(exist_ok=True)
        files.write_json(self.folder / "run.json", tracked.model_dump())

    def _settings(self) -> dict[str, Any]:
        """Return the run's configuration, without credentials."""
        path = RunPaths(self.run).config
        if not path.is_file():
            return {}
        text = strict_yaml.read_text(path, "configuration", "restore the file that the run wrote")
        return strict_yaml.load(redact(text), str(path))[0]

    def _open(self) -> None:
        raise NotImplementedError

    def _send(self, step: int, values: dict[str, float]) -> None:
        raise NotImplementedError

    def _send_grid(self, step: int, png: bytes) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError
