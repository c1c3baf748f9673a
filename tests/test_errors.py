"""Exit codes, which scripts and launchers depend on."""

from __future__ import annotations

import pytest

from collagan_dist import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("ConfigError", 2),
        ("DataError", 3),
        ("ClusterError", 4),
        ("CheckpointError", 5),
        ("NumericError", 6),
        ("Interrupted", 75),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    assert getattr(errors, name)("text").exit_code == code


def test_an_error_of_all_ranks_is_marked_alone() -> None:
    error = errors.on_all_ranks(errors.DataError("text"))
    assert error.raised_on_all_ranks and isinstance(error, errors.DataError)
    assert not errors.DataError("text").raised_on_all_ranks and errors.Interrupted("text").raised_on_all_ranks
