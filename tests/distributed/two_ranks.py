"""Two ranks, started once for all tests that look at what they found."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.processes import Ranks


@cache
def two_ranks() -> list[dict[str, Any]]:
    """What group_ranks.py found on each of two ranks."""
    with tempfile.TemporaryDirectory() as name:
        command = ["tests.distributed.group_ranks", Path(name, "found")]
        with Ranks(Path(name), command, command) as ranks:
            assert ranks.end() == [0, 0], ranks.output()
        return [json.loads(Path(name, f"found-{rank}.json").read_text()) for rank in range(2)]
