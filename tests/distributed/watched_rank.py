"""A rank of `collagan`, run with every way to unpickle watched: it ends with a stack at the first one outside this machine's own work."""

import os
import pickle
import sys
import traceback
from typing import Any

import numpy as np
import torch
from torch.distributed import distributed_c10d

from collagan_dist.commands.main import main


def stop(what: str) -> None:
    traceback.print_stack()
    print(f"WATCHED: {what}", file=sys.stderr, flush=True)
    os._exit(99)


def watch(owner: Any, name: str) -> None:
    setattr(owner, name, lambda *args, **kwargs: stop(f"{owner.__name__}.{name}"))


class WatchedUnpickler(pickle.Unpickler):
    """DALI derives a class of its own, for workers that we do not use; only what is loaded counts."""

    def load(self) -> None:
        stop("pickle.Unpickler.load")


def audit(event: str, args: tuple[object, ...]) -> None:
    if event == "pickle.find_class":
        stop(f"{event} {args}")


if __name__ == "__main__":
    for name in ("load", "loads"):
        watch(pickle, name)
    pickle.Unpickler = WatchedUnpickler  # type: ignore[misc]
    for owner, name in (
        (torch, "load"),
        (torch.jit, "load"),
        (distributed_c10d, "_tensor_to_object"),
        (distributed_c10d, "_object_to_tensor"),
    ):
        watch(owner, name)
    sys.addaudithook(audit)
    if os.environ.get("WATCH_TEST"):  # the watch itself is tested
        pickle.loads(pickle.dumps(np.float32))  # noqa: S301
    main(sys.argv[1:])
