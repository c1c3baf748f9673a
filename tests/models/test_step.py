import gc
import weakref
from copy import deepcopy

import numpy as np
import pytest
import torch

from collagan_dist.config.effects import keys_without_effect
from collagan_dist.config.models import MODELS, model_settings
from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.models.registry import build_networks
from collagan_dist.models.step import MicroBatch, Step
from tests.training.one_rank import setup


def parts_of(manifest: Manifest, **changes: object):  # type: ignore[no-untyped-def]
    part = setup(manifest, **changes)
    networks = build_networks(part.config, part.engine, part.tasks)
    loader = part.loader("train", part.view(training=True), 4)
    batch = next(loader.batches(iter([(np.arange(4), np.zeros(4, np.int64))])))
    return Step(part.config, part.engine, part.tasks, networks, 10), networks, batch


def copy(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(module: torch.nn.Module, before: list[torch.Tensor]) -> bool:
    return any(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def test_each_update_moves_one_side(shards):
    step, networks, batch = parts_of(shards)
    whole = [MicroBatch(batch, {n: t.target(batch) for n, t in step.tasks.items()})]
    step.set_learning_rates(0)
    g, d = copy(networks.generator), copy(networks.discriminators)
    step.update_discriminators(whole, 2)
    assert moved(networks.discriminators, d) and not moved(networks.generator, g)
    assert all(p.grad is None for p in networks.generator.parameters())
    d = copy(networks.discriminators)
    kept = [p.grad.clone() for p in networks.discriminators.parameters()]
    step.update_generator(whole, 2)
    assert moved(networks.generator, g) and not moved(networks.discriminators, d)
    assert all(torch.equal(p.grad, k) for p, k in zip(networks.discriminators.parameters(), kept, strict=True))
    assert all(p.requires_grad for p in networks.discriminators.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_values_of_every_model(shards, model):
    settings = model_settings(model)
    step, networks, batch = parts_of(
        shards, model__tasks=settings["tasks"], model__concentrated=settings["concentrated"], schedule__adv_from=1
    )
    plain, adversarial = step(batch, 0).values, step(batch, 1).values
    tasks = settings["tasks"]
    assert set(plain) == {f"loss/{t}/rec" for t in tasks} | {"loss/total", "gradient/generator"}
    losses = {f"loss/{t}/{k}" for t in tasks for k in ("rec", "adv", "disc")} | {f"accuracy/{t}" for t in tasks}
    assert set(adversarial) == losses | {"loss/total", "gradient/generator", "gradient/discriminators"}
    total = sum(weight * adversarial[name] for name, weight in step.loss_weights().items())
    assert adversarial["loss/total"].item() == pytest.approx(total.item(), rel=1e-5)
    assert set(networks.discriminators.of) == set(tasks)


def test_the_adversarial_loss_joins_at_a_share_of_the_steps(shards):
    step, _, _ = parts_of(shards, schedule__adv_from=0.45)
    assert [step.stage(n) for n in range(10)] == [1] * 4 + [2] * 6  # of 10 steps


@pytest.mark.parametrize(
    "changes",
    [
        {"loss__adv": "minmax", "loss__adv_weighs": "both"},
        {"model__patch": 70, "model__discriminators": "shared"},
        {"loss__weights": {"inpainting": {"adv": 9.0}}},
        {"optim__discriminators": {"lr": 0.5}},
    ],
)
def test_keys_without_effect_change_nothing(shards, changes):
    """What effects.keys_without_effect says of a run whose adversarial loss never begins."""
    learned = []
    for more in ({}, changes):
        step, networks, batch = parts_of(shards, schedule__adv_from=10, **more)
        idle = keys_without_effect(step.config, 10)
        assert all(any(key.startswith(name.replace("__", ".")) for key in idle) for name in changes)
        for number in (0, 9):
            step(batch, number)
        learned.append([p.detach().clone() for p in networks.generator.parameters()])
    assert all(map(torch.equal, *learned))


def test_learning_rates(shards):
    step, _, _ = parts_of(shards, optim__generator={"lr": 0.1, "decay_from": 0.5, "decay_to": 0.1})
    assert [step.learning_rate(n) for n in (0, 4, 5)] == [0.1] * 3
    assert step.learning_rate(7) == pytest.approx(0.1 * (1 - 0.9 * 0.4)) and step.learning_rate(10) == pytest.approx(
        0.01
    )


def log_sigmoid(logits: torch.Tensor) -> np.ndarray:
    return -np.log1p(np.exp(-logits.detach().double().numpy()))


@pytest.mark.parametrize("model", ["M_isd", "M*_isd"])
@pytest.mark.parametrize("both", [False, True])
def test_the_step_s_losses_are_eqs_1_to_6(shards, model, both):
    """A literal transcription: M is the paper's mask (0 in the hole), expectations are means."""
    settings = {"model__concentrated": model == "M*_isd", "loss__adv_weighs": "both" if both else "generator"}
    step, networks, batch = parts_of(shards, **settings)
    x, m = batch.input_B3HW.numpy(), 1 - batch.hole_B1HW.numpy().astype(np.float64)
    y = {name: task.target(batch) for name, task in step.tasks.items()}
    g = {name: output.detach() for name, output in step.generate(batch).items()}
    judged = dict(g)
    if model == "M*_isd":
        y_hat = g["inpainting"].numpy() * (1 - m) + x * m  # eq. 5
        judged["inpainting"] = torch.from_numpy(y_hat).float()
        l1 = np.abs(y["inpainting"].numpy() * (1 - m) - g["inpainting"].numpy() * (1 - m)).mean()  # eq. 6
    else:
        l1 = np.abs(y["inpainting"].numpy() - g["inpainting"].numpy()).mean()
    rec = {"inpainting": l1} | {t: ((y[t] - g[t]).numpy() ** 2).mean() for t in ("segmentation", "landmarks")}
    lam = {"inpainting": (0.8, 100), "segmentation": (0.1, 200), "landmarks": (0.1, 200)}  # section 4.2
    with torch.no_grad():
        real, fake = networks.discriminators(batch.input_B3HW, y, judged)
    weight = {t: lam[t][0] if both else 1.0 for t in lam}
    disc = {t: -(log_sigmoid(real[t]).mean() + weight[t] * log_sigmoid(-fake[t]).mean()) / 2 for t in lam}
    found = step.update_discriminators([MicroBatch(batch, y)], 2).values
    with torch.no_grad():  # G meets the discriminators after their step
        (fake,) = networks.discriminators(batch.input_B3HW, judged)
    adv = {t: -log_sigmoid(fake[t]).mean() for t in lam}  # log D in place of the printed 1 - log D
    total = sum(lam[t][0] * adv[t] + lam[t][1] * rec[t] for t in lam)  # eqs. 1, 2, 3
    found |= step.update_generator([MicroBatch(batch, y)], 2).values
    for t in lam:
        assert found[f"loss/{t}/rec"].item() == pytest.approx(rec[t], rel=1e-4), t
        assert found[f"loss/{t}/disc"].item() == pytest.approx(disc[t], rel=1e-4), t
        assert found[f"loss/{t}/adv"].item() == pytest.approx(adv[t], rel=1e-4), t
    assert found["loss/total"].item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(("parts", "forwards"), [(1, 1), (2, 4)])
def test_statistics_move_once_for_each_micro_batch(shards, parts, forwards):
    """G runs once; with several micro-batches twice on each, for D's update and for its own."""
    step, networks, batch = parts_of(shards, runtime__accumulate=parts)
    calls: list[int] = []
    networks.generator.register_forward_hook(lambda *_: calls.append(1))
    once = deepcopy(networks.generator)
    with step.engine.autocast(), torch.no_grad():
        for part in batch.split(parts):
            once(part.input_B3HW, part.keys_B2)
    calls.clear()
    step(batch, 0)
    moved = dict(networks.generator.named_buffers())
    assert all(torch.allclose(value, moved[name]) for name, value in once.named_buffers())
    assert len(calls) == forwards


def test_nothing_but_its_owner_keeps_a_step_s_networks(shards):
    """A rollback builds new networks, for which a GPU needs the memory of the old ones at once."""
    step, networks, batch = parts_of(shards)
    step(batch, 0)
    generator = weakref.ref(networks.generator)
    gc.collect()
    gc.disable()
    try:
        del step, networks
        assert generator() is None
    finally:
        gc.enable()
