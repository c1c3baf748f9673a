"""The steps around the one at which the loss scale doubles, beside Adam on gradients that were never scaled."""

import torch

from collagan_dist.config.tree import Adam
from collagan_dist.distributed import precision
from collagan_dist.distributed.engine import Engine
from collagan_dist.distributed.update import Update


def grown_scale(engine: Engine) -> list[bool]:
    """Whether three steps, the second the one that doubles, equal unscaled ones bit by bit; whether the scale has doubled."""
    module = engine.prepare_module(torch.nn.Linear(3, 2, bias=False))
    free = torch.nn.Parameter(module.weight.detach().clone())
    learner = engine.learner(module, Adam())
    assert learner.scale is not None
    learner.scale.load(torch.tensor([2.0**16, precision._GROWTH_INTERVAL - 2]))
    adam = torch.optim.Adam([free], lr=1e-2, betas=learner.adam.betas, fused=True)
    for number in range(1, 4):  # gradients of other sizes: Adam does not see a scale that all of them have
        slope = torch.tensor([[3.0, -1.0, 0.5], [4.0, 2.0, -8.0]]) * number
        with Update(engine, "it", [learner], lr=1e-2) as update:
            # Through the network, as DDP and DeepSpeed want it, but without a rounding in float16.
            update.backward([learner(torch.eye(3)).sum() * 0 + (learner.parameters[0] * slope).sum()])
        free.grad = slope
        adam.step()
        if number == 1:
            assert float(learner.scale.value) == 2.0**16
    return [torch.equal(module.weight.detach(), free.detach()), float(learner.scale.value) == 2.0**17]
