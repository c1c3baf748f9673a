import torch

from collagan_dist.distributed import precision
from collagan_dist.distributed.precision import LossScale

CPU = torch.device("cpu")


def test_it_doubles_after_many_steps_and_halves_at_once():
    """From 1 to its maximum; a lower scale counts anew."""
    scale = LossScale(CPU)
    start = float(scale.value)
    for value, after in ((start, 2 * start), (precision._MAX_SCALE, precision._MAX_SCALE)):
        scale.value.fill_(value)
        for _ in range(precision._GROWTH_INTERVAL):
            assert float(scale.value) == value
            scale.step_taken()
        assert float(scale.value) == after
    scale.value.fill_(start)
    for _ in range(precision._GROWTH_INTERVAL - 1):
        scale.step_taken()
    assert scale.lower() and float(scale.value) == start / 2
    scale.step_taken()
    assert float(scale.value) == start / 2
    scale.value.fill_(1)
    assert not scale.lower() and float(scale.value) == 1


def test_a_checkpoint_keeps_scale_and_count():
    scale, other = LossScale(CPU), LossScale(CPU)
    scale.lower()
    scale.step_taken()
    other.load(scale.state())
    assert torch.equal(other.state(), scale.state()) and other.state().tolist() == [precision._INITIAL_SCALE / 2, 1]
