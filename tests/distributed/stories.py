"""What every engine and stage is to stand, each told in the ranks that there are: by case, what is to be true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup
from collagan_dist.types import Batch
from tests.distributed.cases import Case
from tests.distributed.train_cases import flat, learn, made, with_engine
from tests.models.peers import PEERS, peer, smooth
from tests.training.small import equal

STAGES = [Case(f"deepspeed-{stage}") for stage in (0, 1, 2)]
Told = dict[str, Any]


def spoilt(setup: Setup, _: Path) -> Told:
    """A picture of the last rank has NaN, in its last part: the step is skipped, and what follows is as if it had not been.

    By case: the ranks that are named, and whether the next steps are equal.
    """
    told = {}
    for case in [replace(c, accumulate=parts, sync_bn=False) for c in (Case("ddp"), *STAGES) for parts in (1, 2)]:
        sound = _numbered(setup, case, [(0, False), (1, False)])
        ill = _numbered(setup, case, [(0, True), (0, False), (2, True), (1, False)])
        told[case.name] = [ill["named"], equal(sound["tensors"], ill["tensors"])]
    return told


def _numbered(setup: Setup, case: Case, plan: list[tuple[int, bool]]) -> Told:
    """Steps of these numbers (0 is before the discriminators begin), some with a NaN in the last rank's last picture."""
    setup, networks = made(setup, case)
    step = build_step(setup.config, setup.engine, setup.tasks, networks, 10)
    named = []
    for number, ill in plan:
        batch = _batch(setup, number)
        if ill and setup.world.rank == setup.world.size - 1:
            batch.input_B3HW[-1, 0, 0, 0] = torch.nan
        verdict = step(batch, number).verdict
        assert verdict.finite == (not ill)
        if ill:
            named.append([verdict.side, list(verdict.ranks)])
    return {"named": named, "tensors": flat(networks)}


def _batch(setup: Setup, seed: int) -> Batch:
    """This rank's part of a batch of eight smooth pictures with labels and points."""
    batch, draw = smooth(8, 32, "pattern", seed), torch.Generator().manual_seed(seed)
    batch = replace(
        batch,
        label_BHW=torch.randint(0, 11, (8, 32, 32), generator=draw).to(torch.uint8),
        points_BK2=torch.rand(8, 5, 2, generator=draw) * 32,
    )
    return batch.split(setup.world.size)[setup.world.rank]


def resumed(setup: Setup, _: Path) -> Told:
    """Three steps, new networks from the checkpoint, three steps: equal to six, bit by bit, with clipping and a falling rate."""
    told = {}
    optim = {
        "generator": {"clip": 0.5, "decay_from": 0.0, "decay_to": 0.1},
        "discriminators": {"clip": 0.5},
        "ema": 0.9,
    }
    for case in STAGES:
        whole, networks = made(setup, case, optim=optim)
        learn(whole, networks, range(6))
        half, first = made(setup, case, optim=optim)
        learn(half, first, range(3))
        half, second = made(setup, case, flat(first), optim=optim)
        learn(half, second, range(3, 6))
        told[case.name] = equal(flat(networks), flat(second))
    return told


def converted(setup: Setup, out: Path) -> Told:
    """Checkpoints among engines. Two ranks: three steps under DDP, three under ZeRO 2, then three more under all.

    One rank takes the checkpoint of the sixth step up, too. By case: whether what is saved at once is what was loaded, bit by bit; the losses
    of the last steps.
    """
    file = out / "converted.safetensors"
    if setup.world.size > 1:
        tensors = None
        for engine, steps in (("ddp", range(3)), ("deepspeed-2", range(3, 6))):
            part, networks = made(setup, Case(engine), tensors)
            learn(part, networks, steps)
            tensors = flat(networks)
        if setup.world.is_rank0 and tensors is not None:
            save_file({name: t.contiguous() for name, t in tensors.items()}, file)
        setup.group.all_gather(None)
    told, tensors = {}, load_file(file)
    for engine in ("ddp", "deepspeed-0", "deepspeed-1", "deepspeed-2"):
        part, networks = made(setup, Case(engine), tensors)
        same = equal(tensors, flat(networks))
        told[engine] = [same, [step["loss/total"] for step in learn(part, networks, range(6, 9))]]
    return told


def undisturbed(setup: Setup, _: Path) -> Told:
    """Nine steps under DDP: the losses of the last three."""
    part, networks = made(setup, Case("ddp"))
    return {"ddp": [step["loss/total"] for step in learn(part, networks, range(9))[6:]]}


def gfc(setup: Setup, _: Path) -> Told:
    """GFC, whose discriminators learn one by one: the parameters after three steps of its last stage, by engine."""
    told = {}
    for case in (Case("ddp"), *STAGES):
        runtime = {key.removeprefix("runtime__"): value for key, value in case.changes.items()}
        config = peer(setup.manifest, "gfc", model__gfc={"parsing": 0.0}, runtime=runtime | {"threads": 1})
        part = replace(with_engine(setup, config), tasks=dict(list(setup.tasks.items())[:1]))
        networks = build_networks(config, part.engine, part.tasks)
        step = build_step(config, part.engine, part.tasks, networks, 20)
        for number in (17, 18, 19):
            batch = smooth(8, 32, seed=number).split(part.world.size)[part.world.rank]
            step(batch, number)
        moved = [
            p.detach().double().flatten() for m in (networks.generator, networks.discriminators) for p in m.parameters()
        ]
        told[case.name] = torch.cat(moved).tolist()
    return told


def layouts(setup: Setup, _: Path) -> Told:
    """Losses with channels_last pictures, by engine."""
    told = {}
    for case in (Case("ddp"), *STAGES):
        part, networks = made(setup, case, runtime__channels_last=True)
        told[case.name] = [step["loss/total"] for step in learn(part, networks, range(4))]
    return told


def peers(setup: Setup, _: Path) -> Told:
    """CE, SII and GFC under DDP, with all stages of GFC: the losses of four steps, means over ranks."""
    told = {}
    for name in PEERS:
        gfc = {"model__gfc": {"parsing": 0.0}} if name == "gfc" else {}
        config = peer(setup.manifest, name, **gfc, runtime={"engine": "ddp", "threads": 1})
        part = replace(with_engine(setup, config), tasks=dict(list(setup.tasks.items())[:1]))
        networks = build_networks(config, part.engine, part.tasks)
        step = build_step(config, part.engine, part.tasks, networks, 4)
        told[name] = []
        for number in range(4):
            batch = smooth(12, 32, seed=number).split(part.world.size)[part.world.rank]
            values = {k: v for k, v in step(batch, number).values.items() if k.startswith("loss/")}
            means = setup.group.all_reduce_mean(torch.stack([values[k].double() for k in sorted(values)]))
            told[name].append(dict(zip(sorted(values), means.tolist(), strict=True)))
    return told


STORIES: dict[str, Callable[[Setup, Path], Told]] = {
    story.__name__: story for story in (spoilt, resumed, converted, undisturbed, gfc, layouts, peers)
}
