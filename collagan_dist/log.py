"""What the program says of itself (not its results): one handler that writes log messages to stderr."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from collagan_dist.urls import redact


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes messages, without level or time, to what `sys.stderr` is at that moment, and flushes after each."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's own would assign `stream`

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        # Looked up for each message: a progress bar of rich, a Ray trial's log file and pytest replace sys.stderr.
        return sys.stderr

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def log_to_stderr() -> None:
    """Send the messages of all loggers of this package, from level INFO, to stderr; a second call changes nothing."""
    logger = logging.getLogger("collagan_dist")
    logger.handlers = [StderrHandler()]
    logger.setLevel(logging.INFO)
    # Libraries that add a handler to the root logger would write each message a second time.
    logger.propagate = False
