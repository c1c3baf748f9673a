import pytest
import torch

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.adam import AdamStates
from collagan_dist.distributed.engines import build_engine
from collagan_dist.distributed.group import Group
from collagan_dist.errors import ConfigError
from collagan_dist.types import World
from tests.distributed.loss_scales import grown_scale


def test_ranks_without_an_engine_that_joins_them_are_refused():
    with pytest.raises(ConfigError, match=r"this run has 2; set runtime\.engine to ddp"):
        group = Group(World(), torch.device("cpu"))
        group.world = World(size=2)
        build_engine(Runtime(engine="plain"), group).learner(torch.nn.Linear(1, 1), Adam())


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
        with engine.update("it", [learner], lr=1e-3) as update:
            update.backward([(learner.module.weight * slope).sum()])
        assert bool(update.finite) and update.values["gradient/it"].item() == pytest.approx(5.0)
        assert learner.parameters[0].grad.flatten().tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_adam_is_torch_s(layout):
    """Bit by bit over several steps, with gradients in another memory layout; nothing moves where the flag is false."""
    torch.manual_seed(0)
    shapes = [(6, 5, 4, 4), (7,), (3, 3, 1, 1)]
    ours = [torch.randn(shape) for shape in shapes]
    ours = [p.to(memory_format=layout) if p.dim() == 4 else p for p in ours]
    theirs = [p.clone() for p in ours]
    one, other = AdamStates(ours, (0.5, 0.999)), torch.optim.Adam(theirs, lr=1e-2, betas=(0.5, 0.999), fused=True)
    for number in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        one.step(1e-2, torch.tensor(number != 2))
        if number != 2:
            other.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b) and one.state[a].keys() == other.state[b].keys()
        assert all(torch.equal(value, other.state[b][key]) for key, value in one.state[a].items())
