"""collagan_dist/log.py: messages of the package's loggers on stderr."""

from __future__ import annotations

import io
import logging
from contextlib import redirect_stderr

import pytest

from collagan_dist.log import log_to_stderr

logger = logging.getLogger("collagan_dist.tests")


def test_messages_are_written_once_and_without_decoration(capfd: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    log_to_stderr()
    root = logging.getLogger()
    other = logging.StreamHandler()
    root.addHandler(other)
    try:
        logger.info("10% packed")
        logger.warning("warning: a shard is damaged")
        logger.debug("not for people")
    finally:
        root.removeHandler(other)
    assert capfd.readouterr() == ("", "10% packed\nwarning: a shard is damaged\n")


def test_the_present_stderr_is_used() -> None:
    with redirect_stderr(io.StringIO()) as log:
        logger.info("said to the trial's log")
    assert log.getvalue() == "said to the trial's log\n"
