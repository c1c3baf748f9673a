"""Run by two_ranks.py as each of two ranks: calls every collective once and writes what this rank got, as JSON."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.ddp import DDPEngine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.stragglers import StragglerDetector
from collagan_dist.distributed.sync_bn import convert_sync_batchnorm
from collagan_dist.distributed.update import Update
from collagan_dist.distributed.world import detect_world
from collagan_dist.doctor import report
from collagan_dist.errors import ClusterError, DataError

CPU = torch.device("cpu")


def collectives(group: Group) -> dict[str, Any]:
    rank = group.world.rank
    tensors = [torch.full((2,), float(rank)), torch.tensor([rank])]
    group.broadcast_tensors(tensors)
    return {
        "mean": group.all_reduce_mean(torch.tensor([1.0 + rank, 4.0])).tolist(),
        "and": group.all_reduce_and(torch.tensor([True, rank == 0, False])).tolist(),
        "deferred": [group.all_reduce_sum_deferred(*values) for values in ((rank + 1.0, 10.0), (0.0, 0.0), (0.0, 0.0))],
        "floats": group.all_gather_float(rank + 0.5),
        "objects": group.all_gather({"rank": rank}),
        "broadcast": group.broadcast(f"from rank {rank}"),
        "tensors": [tensor.tolist() for tensor in tensors],
        "on_rank0": group.on_rank0(lambda: f"by rank {rank}"),
        "for long": in_rounds(group),
    }


def in_rounds(group: Group) -> str:
    """Work of rank 0 that takes longer than a round of waiting."""
    limit, group.timeout = group.timeout, 0.2
    try:
        return group.on_rank0_for_long(lambda: time.sleep(1) or f"by rank {group.world.rank}")
    finally:
        group.timeout = limit


def errors(group: Group) -> dict[str, str]:
    """What this rank gets of each error, on rank 0 or in a collective."""
    found = {}
    for name, error in (
        ("data", DataError("no such shard")),
        ("unexpected", OSError("no such file")),
        ("own", RuntimeError("an error of this rank's own")),
        ("peer", RuntimeError("[gloo] Connection closed by peer")),
    ):

        def fail(error: Exception = error) -> None:
            raise error

        try:
            if name in ("own", "peer"):
                with group.collective("a collective"):
                    fail()
            group.on_rank0(fail)
        except Exception as caught:
            found[name] = f"{type(caught).__name__}: {caught}"
    try:
        group.on_rank0(object)
    except Exception as caught:
        found["not a message"] = f"{type(caught).__name__}: {caught}"
    return found


def batch_norm(group: Group) -> dict[str, Any]:
    """The outputs of a SyncBatchNorm on this rank's half of a batch, in training and after, and its running statistics."""
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64).chunk(2)[group.world.rank]
    layer = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), group).double()[0]
    return {
        "output": layer(x).tolist(),
        "running": [layer.running_mean.tolist(), layer.running_var.tolist()],
        "eval": layer.eval()(x).tolist(),
    }


def ddp(group: Group) -> dict[str, Any]:
    """Gradients of three steps, the second of two micro-batches, by our learner and by torch's class; and what was imported for ours."""
    found: dict[str, Any] = {}
    for name, compile_ in (("ours", False), ("torch", True)):
        engine = DDPEngine(Runtime(compile=compile_), group)
        engine.compiled = lambda function, part: function  # type: ignore[method-assign]
        torch.manual_seed(group.world.rank)  # ranks begin apart: building a learner makes them equal
        module = nn.Sequential(nn.Linear(300, 1200), nn.BatchNorm1d(1200), nn.ReLU(), nn.Linear(1200, 3))
        learner = engine.learner(module, Adam())
        torch.manual_seed(10 + group.world.rank)
        gradients = []
        for micro_batches in (1, 2, 1):
            with Update(engine, "generator", [learner], 1e-3, micro_batches) as update:
                for _ in range(micro_batches):
                    update.backward([learner(torch.randn(4, 300)).square().mean()])
            gradients.append(
                [float(update.values["gradient/generator"]), *(p.grad[0].tolist() for p in module.parameters())]
            )
        found[name] = gradients
        found[f"compiler imported for {name}"] = "torch._dynamo" in sys.modules
    return found


def stragglers(group: Group) -> list[list[str]]:
    """What each of five checks finds while rank 1 works longer than rank 0."""
    detector, found = StragglerDetector(group, 2.0), []
    for _ in range(5):
        with group.stopwatch:
            time.sleep(0.2 if group.world.rank else 0.01)
            group.barrier("waiting is not a rank's own work")
        found.append([str(straggler) for straggler in detector.check()])
    return found


def lost_rank(group: Group) -> str:
    """How a rank that waits learns of the error by which rank 1 ends. Closes the group."""
    group._others_failed = False  # errors() has pretended that they had
    try:
        with group:
            if group.world.rank == 1:
                raise ValueError("a fault of this rank's own")
            group.barrier("the end")
    except (ValueError, ClusterError) as error:
        return str(error)
    return "nothing"


def main(out: str) -> None:
    world = detect_world()
    group = Group(world, CPU, 20, 30)
    found = {
        "collectives": collectives(group),
        "errors": errors(group),
        "batch_norm": batch_norm(group),
        "ddp": ddp(group),
        "stragglers": stragglers(group),
        "doctor": [[vars(finding) for finding in report._check_ranks(group, net)] for net in (True, False)],
        "lost_rank": lost_rank(group),
    }
    Path(f"{out}-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
