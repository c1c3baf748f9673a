"""A rendezvous of many ranks: processes forked from one that has imported torch, with several ranks in threads of each.

Run as a script it prints what it found as JSON: `python -m tests.distributed.crowd RANKS PROCESSES [MISSING ...]`.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from collagan_dist.distributed import rendezvous as module
from collagan_dist.errors import ClusterError
from collagan_dist.types import World
from tests.faults.processes import free_port

TIMEOUT = 60.0


def crowd(size: int, processes: int, missing: tuple[int, ...] = (), timeout: float = TIMEOUT) -> dict[str, object]:
    """Let all ranks but the missing ones meet. Return the seconds from the first start, and what ranks said, with counts.

    Rank 0 has this process to itself, as in a run.
    """
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    began = time.monotonic()
    children = {}
    for number in range(processes):
        reader, writer = os.pipe()
        if (pid := os.fork()) == 0:
            ranks = [rank for rank in range(1 + number, size, processes) if rank not in missing]
            with ThreadPoolExecutor(max(1, len(ranks))) as pool:
                said = [*pool.map(lambda rank: _meet(rank, size, timeout), ranks)]
            with os.fdopen(writer, "w") as file:
                file.write(json.dumps(said))
            os._exit(0)
        os.close(writer)
        children[pid] = reader
    of_rank_0 = _meet(0, size, timeout)
    alone = time.monotonic() - began
    said = [of_rank_0]
    for pid, reader in children.items():
        with os.fdopen(reader) as file:
            said += json.loads(file.read() or "[]")
        os.waitpid(pid, 0)
    counts = {text: said.count(text) for text in dict.fromkeys(said)}
    return {"said": counts, "rank 0 seconds": round(alone, 2), "all seconds": round(time.monotonic() - began, 2)}


_kept = []  # rank 0's store lives as long as others use it


def _meet(rank: int, size: int, timeout: float) -> str:
    try:
        met = module.rendezvous(World(rank, size), timeout)
    except ClusterError as error:
        return str(error)
    if rank == 0:
        _kept.append(met)
    return "met"


if __name__ == "__main__":
    size, processes, *missing = map(int, sys.argv[1:])
    began = time.process_time()
    found = crowd(size, processes, tuple(missing))
    print("FOUND" + json.dumps({**found, "rank 0 CPU seconds": round(time.process_time() - began, 2)}))
