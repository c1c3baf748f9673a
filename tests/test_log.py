import io
import logging
from contextlib import redirect_stderr

from collagan_dist.log import log_to_stderr

logger = logging.getLogger("collagan_dist.tests")


def test_messages_are_written_once_and_without_decoration(capfd, monkeypatch):
    log_to_stderr()
    log_to_stderr()
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])
    # The present stderr is used.
    with redirect_stderr(io.StringIO()) as log:
        logger.info("10% packed")
        logger.warning("warning: a shard is damaged")
        logger.debug("not for people")
    assert log.getvalue() == "10% packed\nwarning: a shard is damaged\n" and capfd.readouterr() == ("", "")
