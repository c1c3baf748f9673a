"""What two ranks found, as a fixture."""

from typing import Any

import pytest

from tests.distributed.two_ranks import found_by_two_ranks


@pytest.fixture(scope="session")
def two_ranks() -> list[dict[str, Any]]:
    """What group_ranks.py found on each of two ranks, which run once."""
    return found_by_two_ranks()
