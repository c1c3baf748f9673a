import pytest
import torch

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.update import Update
from collagan_dist.types import World
from tests.distributed.loss_scales import grown_scale


def test_a_scale_that_grows_leaves_the_step_as_it_is():
    """The gradient of the 2000th good step was divided by the doubled scale. (DDP and DeepSpeed: test_engines.py.)"""
    engine = build_engine(Runtime(precision="fp16"), Group(World(), torch.device("cpu")))
    assert grown_scale(engine) == [True, True]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_clipping_shortens_a_gradient_to_its_length_and_leaves_a_shorter_one(precision):
    """What Adam gets, whatever the loss was scaled by; the norm that is told is the gradient's own."""
    engine = build_engine(Runtime(precision=precision), Group(World(), torch.device("cpu")))
    for clip, factor in ((0.0, 1.0), (2.5, 0.5), (50.0, 1.0)):
        learner = engine.learner(torch.nn.Linear(1, 2, bias=False), Adam(clip=clip))
        slope = torch.tensor([[3.0], [4.0]])
        with Update(engine, "it", [learner], lr=1e-3) as update:
            update.backward([(learner.module.weight * slope).sum()])
        assert bool(update.finite) and update.values["gradient/it"].item() == pytest.approx(5.0)
        assert learner.parameters[0].grad.flatten().tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-5)
