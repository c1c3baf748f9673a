"""What a sweep searches or sets without effect, said before it starts and on its page."""

from __future__ import annotations

from collagan_dist.config import effects
from collagan_dist.config.load import changed_keys
from collagan_dist.sweep.prepare import PreparedSweep


def sweep_warnings(prepared: PreparedSweep) -> list[str]:
    """Return a sentence for each key that is searched or set without effect, and for rungs before the adversarial loss begins."""
    plan, base = prepared.plan, prepared.base
    space = plan.space
    # One key at a time at each of its ends. A key has an effect where it has one in any of these.
    configs = [space.config(values) for values in ({}, *space.corners())]
    lengths = [-(-plan.total // config.schedule.batch) for config in configs]
    idle = [effects.keys_without_effect(*pair) for pair in zip(configs, lengths, strict=True)]
    found = effects.warnings_of(base, lengths[0], changed_keys(prepared.options.sets))
    without = {
        key: effects.reason_of(key, idle[0]) for key in space.keys if all(effects.reason_of(key, one) for one in idle)
    }
    for reason in dict.fromkeys(without.values()):
        keys = ", ".join(key for key, one in without.items() if one == reason)
        found.append(f"{keys}: searched without effect: {reason}")
    adversarial = [
        key for key in space.keys if key.startswith("loss.weights.") and key.endswith(".adv") and key not in without
    ]
    # In steps of the base: at a rung before it, trials with different λ_adv have learned the same.
    start = base.schedule.adversarial_start(lengths[0]) * base.schedule.batch
    early = [f"{rung:,}" for rung in plan.rungs[:-1] if rung <= start and base.model.name in ("collagan", "ce")]
    if adversarial and early and "schedule.adv_from" not in space.keys:
        found.append(
            f"{', '.join(adversarial)}: no effect yet where trials are compared after {', '.join(early)} samples: the adversarial loss begins "
            f"after {start:,} (schedule.adv_from)"
        )
    return found
