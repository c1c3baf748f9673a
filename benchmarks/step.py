"""The training step on one CPU thread, against the plain one that pix2pix writes; CPU-seconds a step, alternating in one process.

M*_isd of the preset `stable` (128x128, full widths, batch 8) on one batch. The plain step has the same networks, losses and optimizer in
fp32 and eager, in torch's default layout, in the order of pix2pix's `optimize_parameters`: D sees the fakes, then the real images, one
task after the other; torch.optim.Adam as it comes. `ratio_to_plain` is the plain step's time over ours; `losses_differ_by` the largest
relative difference between the losses of the first step that both compute from equal weights; those of G against D come after an
update of D, in which Adam's first step makes its own of a rounding.
"""

from __future__ import annotations

import copy
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import save
from benchmarks.gpu_training import made_up
from collagan_dist.config.load import load_config
from collagan_dist.config.tree import Config
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.models.registry import build_networks, build_step
from collagan_dist.tasks import build_tasks
from collagan_dist.types import Batch, World

BATCH, ROUNDS = 8, 7


class PlainStep:
    """pix2pix's step, for several tasks."""

    def __init__(self, config: Config, generator: nn.Module, discriminators: nn.Module) -> None:
        self.config = config
        self.generator, self.discriminators = plain_copy(generator), plain_copy(discriminators)
        betas = config.optim.generator.betas
        self.adam_g = torch.optim.Adam(self.generator.parameters(), lr=config.optim.generator.lr, betas=betas)
        self.adam_d = torch.optim.Adam(self.discriminators.parameters(), lr=config.optim.discriminators.lr, betas=betas)

    def __call__(self, batch: Batch, targets: dict[str, torch.Tensor]) -> dict[str, float]:
        x, hole = batch.input_B3HW, batch.hole_B1HW
        outputs = self.generator(x, batch.keys_B2)
        fakes = dict(zip(targets, outputs.split([t.shape[1] for t in targets.values()], dim=1), strict=True))
        seen = {**fakes, "inpainting": torch.where(hole, fakes["inpainting"], x)}
        for parameter in self.discriminators.parameters():
            parameter.requires_grad_(True)
        self.adam_d.zero_grad()
        found: dict[str, float] = {}
        losses = []
        for task, target in targets.items():
            network = self.discriminators.of[task]
            fake, real = (
                network.layers(torch.cat([x, seen[task].detach()], 1)),
                network.layers(torch.cat([x, target], 1)),
            )
            ones = torch.ones_like(real)
            loss = F.binary_cross_entropy_with_logits(fake, 0 * ones) + F.binary_cross_entropy_with_logits(real, ones)
            losses.append(0.5 * loss)
            found[f"loss/{task}/disc"] = losses[-1].item()
        sum(losses).backward()  # type: ignore[union-attr]
        self.adam_d.step()
        for parameter in self.discriminators.parameters():
            parameter.requires_grad_(False)
        self.adam_g.zero_grad()
        total: torch.Tensor | float = 0.0
        for task, target in targets.items():
            logits = self.discriminators.of[task].layers(torch.cat([x, seen[task]], 1))
            adv = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
            error = fakes[task] - target
            rec = (error.abs() * hole).mean() if task == "inpainting" else error.square().mean()
            weights = self.config.loss.weights[task]
            total = total + weights.adv * adv + weights.rec * rec
            found |= {f"loss/{task}/adv": adv.item(), f"loss/{task}/rec": rec.item()}
        total.backward()  # type: ignore[union-attr]
        self.adam_g.step()
        return found


def plain_copy(module: nn.Module) -> nn.Module:
    """The same network in torch's default layout, with torch's batch normalization."""
    copied = copy.deepcopy(module).to(memory_format=torch.contiguous_format)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                plain = nn.BatchNorm2d(child.num_features)
                plain.load_state_dict(child.state_dict())
                setattr(parent, name, plain)
    return copied


def main() -> None:
    torch.set_num_threads(1)
    config = load_config("stable", model="M*_isd")
    group = Group(World(), torch.device("cpu"))
    engine, tasks = build_engine(config.runtime, group), build_tasks(config)
    networks = build_networks(config, engine, tasks)
    step = build_step(config, engine, tasks, networks, 1_000_000)
    batch = made_up(group.device, BATCH)
    plain = PlainStep(config, networks.generator, networks.discriminators)
    targets = {name: task.target(batch) for name, task in tasks.items()}
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    differ: dict[str, float] = {}
    for number in range(ROUNDS + 1):
        began = time.process_time()
        expected = plain(batch, targets)
        between = time.process_time()
        values = step(batch, number).values
        found = {name: float(values[name]) for name in expected}
        if number:  # the first round warms up
            seconds["plain"].append(between - began)
            seconds["ours"].append(time.process_time() - between)
        if not number:
            differ = {name: abs(found[name] / expected[name] - 1) for name in expected}
    flags = Path("/proc/cpuinfo").read_text()
    save(
        __file__,
        {
            "processor_has": [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
            "batch": BATCH,
            "rounds": ROUNDS,
            "ratio_to_plain": round(statistics.median(p / o for p, o in zip(*seconds.values(), strict=True)), 3),
            "cpu_seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
            "losses_differ_by": largest(differ, "/disc", "/rec"),
            "after_an_update_of_D": largest(differ, "/adv"),
        },
    )


def largest(differ: dict[str, float], *ends: str) -> float:
    return float(f"{max(value for name, value in differ.items() if name.endswith(ends)):.2g}")


if __name__ == "__main__":
    main()
