"""Two ranks, started once for all tests of this folder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.processes import Ranks


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What group_ranks.py found on each of two ranks."""
    folder = tmp_path_factory.mktemp("two_ranks")
    with Ranks(folder, "tests.distributed.group_ranks", folder / "found") as ranks:
        assert ranks.ends(0, 1) == [0, 0], ranks.all_said()
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]
