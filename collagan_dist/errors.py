"""Errors that are shown to users: each class has an exit code, and each message says what is wrong, where and what to do."""

from typing import TypeVar

from collagan_dist.urls import redact

E = TypeVar("E", bound="CollaganError")

_MAX_LINE, _SHOWN = 2000, 900  # characters of a message's line, and of its two ends

# Exit codes are part of the command line: job scripts and the sweep act on them.


class CollaganError(Exception):
    """An error that the command line prints without a traceback."""

    exit_code = 1
    # True if every rank raises the same error: then rank 0 alone prints it.
    raised_on_all_ranks = False

    def __init__(self, *args: object) -> None:
        # Messages travel: to logs, RUN/failed, trials.csv, pages. And they repeat what files hold.
        super().__init__(*(_shorten(redact(item)) if isinstance(item, str) else item for item in args))


def _shorten(text: str) -> str:
    """Return a message without the middle of lines that are longer than a screen shows."""
    if len(text) <= _MAX_LINE:
        return text
    lines = text.split("\n")
    return "\n".join(line if len(line) <= _MAX_LINE else f"{line[:_SHOWN]} … {line[-_SHOWN:]}" for line in lines)


class ConfigError(CollaganError):
    """Wrong usage or configuration."""

    exit_code = 2


class DataError(CollaganError):
    """Annotation files, pictures or shards that are missing or damaged."""

    exit_code = 3


class ClusterError(CollaganError):
    """A failed rendezvous, a hang, nodes that disagree, a lost lease."""

    exit_code = 4


class CheckpointError(CollaganError):
    """A checkpoint that is damaged, missing or of another configuration."""

    exit_code = 5


class NumericError(CollaganError):
    """NaN or Inf in losses or gradients that remained after rollbacks."""

    exit_code = 6


class Interrupted(CollaganError):
    """The run was asked to stop. Its state is saved; the same command resumes it."""

    # EX_TEMPFAIL of sysexits.h: slurm scripts requeue the job on it.

    exit_code = 75
    raised_on_all_ranks = True


def mark_on_all_ranks(error: E) -> E:
    """Mark an error that every rank raises, so that rank 0 alone prints it."""
    error.raised_on_all_ranks = True
    return error
