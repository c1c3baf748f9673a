"""Run by matrix.py under torchrun, or alone: trains in several ways, one after the other in one process group.

For each case rank 0 writes the losses of its steps and the tensors of its checkpoint; for each scenario its outcome by case.
"""

import json
import os
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.world import detect_world
from collagan_dist.models.networks import Networks
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.setup import Setup, build_setup, training_order
from collagan_dist.types import Batch
from tests.distributed.cases import STEPS, WITH_REFERENCES, Case
from tests.distributed.loss_scales import grown_scale
from tests.models.peers import PEERS, peer, smooth
from tests.training.small import equal, small

Tensors = dict[str, torch.Tensor]
STAGES = [Case(f"deepspeed-{stage}") for stage in (0, 1, 2)]


def build(setup: Setup, case: Case, tensors: Tensors | None = None, **more: object) -> tuple[Setup, Networks]:
    """Return the same ranks with a case's engine, and new networks, at their start or with these tensors."""
    config = small(
        setup.manifest.folder, schedule__batch=8, schedule__adv_from=1, hole__kind="pattern", seed=3, **case.changes, **more
    )  # fmt: skip
    setup = replace(setup, config=config, engine=build_engine(config.runtime, setup.group))
    networks = build_networks(config, setup.engine, setup.tasks)
    if tensors is not None:
        files: dict[str, Tensors] = defaultdict(dict)
        for path, value in tensors.items():
            file, _, name = path.partition("/")
            files[file][name] = value
        networks.restore(files)
    return setup, networks


def flat(networks: Networks) -> Tensors:
    """Return all tensors of a checkpoint by file and name. Collective."""
    return {f"{file}/{name}": t.clone() for file, found in networks.tensors().items() for name, t in found.items()}


def means(setup: Setup, values: Tensors) -> dict[str, float]:
    stacked = setup.group.all_reduce_mean(torch.stack([values[name].double() for name in sorted(values)]))
    return dict(zip(sorted(values), stacked.tolist(), strict=True))


def learn(setup: Setup, networks: Networks, steps: range) -> list[dict[str, float]]:
    """Train; return the values of each step, means over ranks, and {} for a skipped step."""
    step = build_step(setup.config, setup.engine, setup.tasks, networks, STEPS)
    loader = setup.loader("train", setup.view(training=True), setup.config.schedule.batch // setup.world.size)
    order, found = training_order(setup.config, setup.manifest), []
    dtype = next(networks.generator.parameters()).dtype
    for number, batch in zip(steps, loader.batches(order.steps(steps.start, steps.stop, setup.world)), strict=True):
        pictures = {"image_B3HW": batch.image_B3HW.to(dtype), "input_B3HW": batch.input_B3HW.to(dtype)}
        result = step(replace(batch, **pictures), number)
        verdict = result.verdict.read()
        assert verdict.finite or verdict.overflow  # fp16 while the loss scale finds its size
        found.append(means(setup, result.values) if verdict.finite else {})
    return found


def nan_on_one_rank(setup: Setup, _: Path) -> Any:
    """An image of the last rank has a NaN, in its last micro-batch: the step is skipped and leaves no trace.

    By case: the side and the ranks of each verdict, and whether the parameters equal those of a training without these steps.
    """
    outcome = {}
    for case, parts in zip((Case("ddp"), *STAGES, STAGES[2]), (2, 1, 2, 1, 2), strict=True):
        case = replace(case, accumulate=parts, sync_bn=False)
        _, clean = _numbered(setup, case, [(0, False), (1, False)])
        named, tensors = _numbered(setup, case, [(0, True), (0, False), (2, True), (1, False)])
        outcome[case.name] = [named, equal(clean, tensors)]
    return outcome


def _numbered(setup: Setup, case: Case, plan: list[tuple[int, bool]]) -> tuple[list[Any], Tensors]:
    """Do the steps of these numbers (0 is before schedule.adv_from), some with a NaN in the last rank's last image."""
    setup, networks = build(setup, case)
    step = build_step(setup.config, setup.engine, setup.tasks, networks, 10)
    named = []
    for number, nan in plan:
        batch = _batch(setup, number)
        if nan and setup.world.rank == setup.world.size - 1:
            batch.input_B3HW[-1, 0, 0, 0] = torch.nan
        verdict = step(batch, number).verdict.read()
        assert verdict.finite == (not nan)
        if nan:
            named.append([verdict.side, list(verdict.ranks)])
    return named, flat(networks)


def _batch(setup: Setup, seed: int) -> Batch:
    """Return this rank's share of a batch of eight smooth images with labels and points."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 11, (8, 32, 32), generator=draw).to(torch.uint8)
    points = torch.rand(8, 5, 2, generator=draw) * 32
    batch = replace(smooth(8, 32, "pattern", seed), label_BHW=label, points_BK2=points)
    return batch.split(setup.world.size)[setup.world.rank]


def resumed(setup: Setup, _: Path) -> Any:
    """Whether networks and their copies from a checkpoint go on alike, with clipping and a falling learning rate."""
    sides = {"generator": {"clip": 0.5, "decay_from": 0.0, "decay_to": 0.1}, "discriminators": {"clip": 0.5}}
    outcome = {}
    for case in STAGES:
        part, networks = build(setup, case, optim={**sides, "ema": 0.9})
        learn(part, networks, range(2))
        again, copies = build(setup, case, flat(networks), optim={**sides, "ema": 0.9})
        for one in ((part, networks), (again, copies)):
            learn(*one, range(2, 4))
        outcome[case.name] = equal(flat(networks), flat(copies))
    return outcome


def grown(setup: Setup, _: Path) -> Any:
    """What loss_scales.py says of each engine."""
    ways = [replace(case, precision="fp16") for case in (Case("ddp"), *STAGES)]
    return {
        case.engine: grown_scale(build_engine(small(setup.manifest.folder, **case.changes).runtime, setup.group))
        for case in ways
    }


def converted(setup: Setup, out: Path) -> Any:
    """Two steps under DDP, two under ZeRO 2, then two more under every engine; one rank continues the checkpoint, too.

    By engine: whether what is saved at once equals what was loaded, and the losses of the last steps, in another layout.
    """
    file = out / "converted.safetensors"
    if setup.world.size > 1:
        tensors = None
        for engine, steps in (("ddp", range(2)), ("deepspeed-2", range(2, 4))):
            part, networks = build(setup, Case(engine), tensors)
            learn(part, networks, steps)
            tensors = flat(networks)
        if setup.world.is_rank0:
            save_file({name: t.contiguous() for name, t in tensors.items()}, file)
        setup.group.all_gather(None)
    outcome, tensors = {}, load_file(file)
    for case in (Case("ddp"), *STAGES):
        part, networks = build(setup, case, tensors, runtime__channels_last=True)
        same = equal(tensors, flat(networks))
        outcome[case.engine] = [same, [step["loss/total"] for step in learn(part, networks, range(4, 6))]]
    return outcome


def exact(setup: Setup, _: Path) -> Any:
    """The values of all steps in float64, with batch statistics of all samples, and of the samples of each of four parts."""
    outcome, prepare = {}, Engine.prepare_module
    Engine.prepare_module = lambda self, module: prepare(self, module).double()  # type: ignore[method-assign]
    for way, case in {
        "together": Case("ddp"), "in four parts": Case("ddp", accumulate=4 // setup.world.size, sync_bn=False),
    }.items():  # fmt: skip
        outcome[way] = learn(*build(setup, case), range(STEPS))
    Engine.prepare_module = prepare  # type: ignore[method-assign]
    return outcome


def peers(setup: Setup, _: Path) -> Any:
    """CE, SII and GFC, whose discriminators have a learner each, in all its stages: the losses of four steps."""
    outcome = {}
    for name, case in [*((name, Case("ddp")) for name in PEERS), *(("gfc", stage) for stage in STAGES)]:
        runtime = {key.removeprefix("runtime__"): value for key, value in case.changes.items()} | {"threads": 1}
        gfc = {"model__gfc": {"parsing": 0.0}} if name == "gfc" else {}
        config = peer(setup.manifest, name, **gfc, runtime=runtime)
        engine, tasks = build_engine(config.runtime, setup.group), {"inpainting": setup.tasks["inpainting"]}
        step = build_step(config, engine, tasks, build_networks(config, engine, tasks), 20)
        found = outcome[f"{name} {case.engine}"] = []
        for number in (0, 10, 18, 19):
            values = step(smooth(12, 32, seed=number).split(setup.world.size)[setup.world.rank], number).values
            found.append(means(setup, {key: value for key, value in values.items() if key.startswith("loss/")}))
    return outcome


def compiled(setup: Setup, _: Path) -> Any:
    """The values of a few steps under DDP, with and without `compile: step`; without the compiler's last part, which takes a minute."""
    compile_ = torch.compile
    torch.compile = lambda function, **options: compile_(function, backend="aot_eager", **options)  # type: ignore[assignment]
    found = {}
    for way, case in {"eager": Case("ddp", sync_bn=False), "step": Case("ddp", sync_bn=False, compile="step")}.items():
        found[way] = learn(*build(setup, case), range(4))
    torch.compile = compile_
    return found


SCENARIOS = {work.__name__: work for work in (nan_on_one_rank, resumed, grown, converted, exact, peers, compiled)}


def main(shards: str, out: str, steps: str, *names: str) -> None:
    known = {case.name: case for case in WITH_REFERENCES}
    world, environment = detect_world(), dict(os.environ)
    setup = build_setup(
        small(Path(shards), runtime={"engine": "ddp", "threads": 1}), world, read_manifest(Path(shards))
    )
    for name in names:
        if name in SCENARIOS:
            found = SCENARIOS[name](setup, Path(out))
        else:
            part, networks = build(setup, known[name])
            if known[name].engine == "plain":
                # One rank's loss is a mean over twice the samples: so its float16 gradients are as large as those of two ranks,
                # and as many overflow.
                for learner in (networks.generator_learner, *networks.discriminator_learners.values()):
                    if learner.scale is not None:
                        learner.scale.value *= 2
            # In fp16 the first steps only find the size of the loss scale.
            found = learn(part, networks, range(STEPS if known[name].precision == "fp16" else int(steps)))
            tensors = flat(networks)
            if world.is_rank0:
                save_file({k: v.contiguous() for k, v in tensors.items()}, Path(out, f"{name}.safetensors"))
        if world.is_rank0:
            Path(out, f"{name}-{world.size}.json").write_text(json.dumps(found))
    changed = {name for name, _ in set(os.environ.items()) ^ set(environment.items())}
    # torch itself, and our wish for records
    assert all(name.startswith(("TORCHINDUCTOR", "TORCH_FR")) for name in changed), changed
    setup.group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
