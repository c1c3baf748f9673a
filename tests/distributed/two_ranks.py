"""Two ranks, started once for all tests that look at what they found."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.processes import Ranks


@cache
def found_by_two_ranks() -> list[dict[str, Any]]:
    """What group_ranks.py found on each of two ranks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Ranks(folder, "tests.distributed.group_ranks", folder / "found") as ranks:
            assert ranks.ends(0, 1) == [0, 0], ranks.all_said()
        return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]
