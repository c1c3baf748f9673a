"""Keys that have no effect in a configuration, and why: said before a run or a sweep costs anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from collagan_dist.config.tree import Config

# Keys that only the discriminators and the adversarial loss read.
_ADVERSARIAL = (
    "loss.adv", "loss.adv_weighs", "optim.discriminators", "model.discriminators", "model.patch",
    "model.widths.discriminator",
)  # fmt: skip
_RECONSTRUCTION = ("loss.l1", "loss.l2", "loss.inpainting_over")


def warnings_of(config: Config, total_steps: int, changed: Iterable[str] = ()) -> list[str]:
    """Return a sentence for each thing in a run of `total_steps` that looks like a mistake.

    `changed` are the dotted keys that the user gave one by one: those without effect are named.
    """
    found = []
    if is_never_adversarial(config, total_steps):
        start = config.schedule.adversarial_start(total_steps)
        found.append(
            f"schedule.adv_from: the adversarial loss would begin at step {start:,}, and the run has {total_steps:,} steps: it is no GAN. "
            "Give a share of the steps (as 0.9), or an earlier step"
        )
    idle = keys_without_effect(config, total_steps)
    reasons = ((key, reason_of(key, idle)) for key in dict.fromkeys(changed))
    return found + [f"{key}: has no effect: {reason}" for key, reason in reasons if reason]


def is_never_adversarial(config: Config, total_steps: int) -> bool:
    """Whether a model whose adversarial loss begins at schedule.adv_from ends before it begins."""
    begins = config.model.name in ("collagan", "ce")  # SII has that loss alone, GFC has stages of its own
    return begins and config.schedule.adversarial_start(total_steps) >= total_steps


def keys_without_effect(config: Config, total_steps: int) -> dict[str, str]:
    """Return the dotted keys and sections that nothing reads in a run of `total_steps`, each with the reason."""
    return dict(_of_adversary(config, total_steps)) | dict(_of_model(config)) | dict(_of_schedule(config))


def reason_of(key: str, idle: dict[str, str]) -> str | None:
    """Return why a key, or the section around it, is one of `idle`; None where it has an effect."""
    return next((reason for one, reason in idle.items() if key == one or key.startswith(f"{one}.")), None)


def _of_adversary(config: Config, total_steps: int) -> Iterator[tuple[str, str]]:
    if is_never_adversarial(config, total_steps):
        start = config.schedule.adversarial_start(total_steps)
        reason = f"the adversarial loss would begin at step {start:,} (schedule.adv_from), and the run has {total_steps:,} steps"
        for key in (*_ADVERSARIAL, *(f"loss.weights.{task}.adv" for task in config.model.tasks)):
            yield key, reason


def _of_model(config: Config) -> Iterator[tuple[str, str]]:
    name, tasks = config.model.name, config.model.tasks
    for peer in ("ce", "sii", "gfc"):
        if name != peer:
            yield f"model.{peer}", f"model.name is {name}"
    if name != "sii":
        yield "evaluate.search", f"model.name is {name}, which completes without a search"
    else:
        for key in (*_RECONSTRUCTION, "loss.weights.inpainting.rec"):
            yield key, "SII has no reconstruction loss"
    if name == "ce":
        for key in _RECONSTRUCTION:
            yield key, "CE has a reconstruction loss of its own"
    if name in ("sii", "gfc"):
        yield "schedule.adv_from", f"{name.upper()} decides itself when its adversarial loss begins"
    if name != "collagan":
        for key in ("model.noise", "model.patch", "model.normalize"):
            yield key, f"model.name is {name}, which has networks of its own"
    if "inpainting" not in tasks:
        for key in ("model.concentrated", "loss.inpainting_over", "loss.l1"):
            yield key, "the model has no task inpainting"
    elif not config.model.concentrated or config.hole.kind == "none":
        yield "loss.inpainting_over", "only the inpainting-concentrated scheme (model.concentrated) with holes reads it"
    if not {"segmentation", "landmarks"} & set(tasks):
        yield "loss.l2", "the model has neither segmentation nor landmarks"
    if "landmarks" not in tasks:
        for key in ("model.heatmap_sigma", "evaluate.readout"):
            yield key, "the model has no task landmarks"
    if config.hole.kind == "none" and config.evaluate.hole in (None, "none"):
        yield "hole.fill", "there are no holes (hole.kind)"


def _of_schedule(config: Config) -> Iterator[tuple[str, str]]:
    if config.schedule.steps:
        yield "schedule.epochs", f"schedule.steps is {config.schedule.steps:,} and takes precedence"
    for side in ("generator", "discriminators"):
        if getattr(config.optim, side).decay_from == 1:
            yield f"optim.{side}.decay_to", f"optim.{side}.decay_from is 1, so the learning rate never falls"
