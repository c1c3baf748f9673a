import pytest
import torch

from collagan_dist.distributed.adam import AdamStates


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
