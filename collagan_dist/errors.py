"""The errors that people see: one message (what, where, how to mend) and one exit code each."""

from typing import TypeVar

E = TypeVar("E", bound="CollaganError")


class CollaganError(Exception):
    """An error for people. Its text names what is wrong, where, and how to mend it."""

    exit_code = 1
    # Every rank raises the same one: it is enough that rank 0 says it.
    raised_on_all_ranks = False


class ConfigError(CollaganError):
    """Usage or configuration."""

    exit_code = 2


class DataError(CollaganError):
    """Annotation files, pictures, shards."""

    exit_code = 3


class ClusterError(CollaganError):
    """Rendezvous, hang, nodes that disagree, a lost lease."""

    exit_code = 4


class CheckpointError(CollaganError):
    """A checkpoint that is damaged, missing or of another configuration."""

    exit_code = 5


class NumericError(CollaganError):
    """NaN or Inf that did not go away."""

    exit_code = 6


class Interrupted(CollaganError):
    """Asked to stop: everything is saved, the same command continues."""

    exit_code = 75
    raised_on_all_ranks = True


def on_all_ranks(error: E) -> E:
    """The error, raised by every rank alike: rank 0 alone says it."""
    error.raised_on_all_ranks = True
    return error
