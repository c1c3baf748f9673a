"""Scenarios that every engine and ZeRO stage runs, on the ranks there are; each returns its outcome by case."""

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
from tests.distributed.train_cases import build, flat, learn, with_engine
from tests.models.peers import PEERS, peer, smooth
from tests.training.small import equal

STAGES = [Case(f"deepspeed-{stage}") for stage in (0, 1, 2)]
Outcome = dict[str, Any]


def nan_on_one_rank(setup: Setup, _: Path) -> Outcome:
    """An image of the last rank has a NaN, in its last micro-batch: the step is skipped and leaves no trace.

    By case: the side and the ranks of each verdict, and whether the parameters equal those of a training without these steps.
    """
    outcome = {}
    for case, parts in zip((Case("ddp"), *STAGES, STAGES[2]), (2, 1, 2, 1, 2), strict=True):
        case = replace(case, accumulate=parts, sync_bn=False)
        clean = _numbered(setup, case, [(0, False), (1, False)])
        nan = _numbered(setup, case, [(0, True), (0, False), (2, True), (1, False)])
        outcome[case.name] = [nan["named"], equal(clean["tensors"], nan["tensors"])]
    return outcome


def _numbered(setup: Setup, case: Case, plan: list[tuple[int, bool]]) -> Outcome:
    """Do the steps of these numbers (0 is before schedule.adv_from), some with a NaN in the last rank's last image."""
    setup, networks = build(setup, case)
    step = build_step(setup.config, setup.engine, setup.tasks, networks, 10)
    named = []
    for number, nan in plan:
        batch = _batch(setup, number)
        if nan and setup.world.rank == setup.world.size - 1:
            batch.input_B3HW[-1, 0, 0, 0] = torch.nan
        verdict = step(batch, number).verdict
        assert verdict.finite == (not nan)
        if nan:
            named.append([verdict.side, list(verdict.ranks)])
    return {"named": named, "tensors": flat(networks)}


def _batch(setup: Setup, seed: int) -> Batch:
    """Return this rank's share of a batch of eight smooth images with labels and points."""
    batch, draw = smooth(8, 32, "pattern", seed), torch.Generator().manual_seed(seed)
    batch = replace(
        batch,
        label_BHW=torch.randint(0, 11, (8, 32, 32), generator=draw).to(torch.uint8),
        points_BK2=torch.rand(8, 5, 2, generator=draw) * 32,
    )
    return batch.split(setup.world.size)[setup.world.rank]


def resumed(setup: Setup, _: Path) -> Outcome:
    """Two steps, new networks from the checkpoint, two more: equal to four steps, with clipping and a falling learning rate."""
    outcome = {}
    optim = {
        "generator": {"clip": 0.5, "decay_from": 0.0, "decay_to": 0.1},
        "discriminators": {"clip": 0.5},
        "ema": 0.9,
    }
    for case in STAGES:
        whole, networks = build(setup, case, optim=optim)
        learn(whole, networks, range(4))
        half, first = build(setup, case, optim=optim)
        learn(half, first, range(2))
        half, second = build(setup, case, flat(first), optim=optim)
        learn(half, second, range(2, 4))
        outcome[case.name] = equal(flat(networks), flat(second))
    return outcome


def converted(setup: Setup, out: Path) -> Outcome:
    """Two steps under DDP, two under ZeRO 2, then two more under every engine; one rank continues the checkpoint, too.

    By case: whether what is saved at once equals what was loaded, and the losses of the last steps.
    """
    file = out / "converted.safetensors"
    if setup.world.size > 1:
        tensors = None
        for engine, steps in (("ddp", range(2)), ("deepspeed-2", range(2, 4))):
            part, networks = build(setup, Case(engine), tensors)
            learn(part, networks, steps)
            tensors = flat(networks)
        if setup.world.is_rank0 and tensors is not None:
            save_file({name: t.contiguous() for name, t in tensors.items()}, file)
        setup.group.all_gather(None)
    outcome, tensors = {}, load_file(file)
    for engine in ("ddp", "deepspeed-0", "deepspeed-1", "deepspeed-2"):
        part, networks = build(setup, Case(engine), tensors)
        same = equal(tensors, flat(networks))
        outcome[engine] = [same, [step["loss/total"] for step in learn(part, networks, range(4, 6))]]
    return outcome


def uninterrupted(setup: Setup, _: Path) -> Outcome:
    """Six steps under DDP: the losses of the last two."""
    part, networks = build(setup, Case("ddp"))
    return {"ddp": [step["loss/total"] for step in learn(part, networks, range(6))[4:]]}


def gfc(setup: Setup, _: Path) -> Outcome:
    """GFC, whose discriminators have a learner each: the parameters after two steps of its last stage, by engine."""
    outcome = {}
    for case in (Case("ddp"), *STAGES):
        runtime = {key.removeprefix("runtime__"): value for key, value in case.changes.items()}
        config = peer(setup.manifest, "gfc", model__gfc={"parsing": 0.0}, runtime=runtime | {"threads": 1})
        part = replace(with_engine(setup, config), tasks=dict(list(setup.tasks.items())[:1]))
        networks = build_networks(config, part.engine, part.tasks)
        step = build_step(config, part.engine, part.tasks, networks, 20)
        for number in (18, 19):
            batch = smooth(8, 32, seed=number).split(part.world.size)[part.world.rank]
            step(batch, number)
        moved = [
            p.detach().double().flatten() for m in (networks.generator, networks.discriminators) for p in m.parameters()
        ]
        outcome[case.name] = torch.cat(moved).tolist()
    return outcome


def layouts(setup: Setup, _: Path) -> Outcome:
    """The losses with channels_last images, by engine."""
    outcome = {}
    for case in (Case("ddp"), *STAGES):
        part, networks = build(setup, case, runtime__channels_last=True)
        outcome[case.name] = [step["loss/total"] for step in learn(part, networks, range(2))]
    return outcome


def peers(setup: Setup, _: Path) -> Outcome:
    """CE, SII and GFC under DDP, with all stages of GFC: the losses of four steps, means over ranks."""
    outcome = {}
    for name in PEERS:
        gfc = {"model__gfc": {"parsing": 0.0}} if name == "gfc" else {}
        config = peer(setup.manifest, name, **gfc, runtime={"engine": "ddp", "threads": 1})
        part = replace(with_engine(setup, config), tasks=dict(list(setup.tasks.items())[:1]))
        networks = build_networks(config, part.engine, part.tasks)
        step = build_step(config, part.engine, part.tasks, networks, 4)
        outcome[name] = []
        for number in range(4):
            batch = smooth(12, 32, seed=number).split(part.world.size)[part.world.rank]
            values = {k: v for k, v in step(batch, number).values.items() if k.startswith("loss/")}
            means = setup.group.all_reduce_mean(torch.stack([values[k].double() for k in sorted(values)]))
            outcome[name].append(dict(zip(sorted(values), means.tolist(), strict=True)))
    return outcome


SCENARIOS: dict[str, Callable[[Setup, Path], Outcome]] = {
    scenario.__name__: scenario
    for scenario in (nan_on_one_rank, resumed, converted, uninterrupted, gfc, layouts, peers)
}
