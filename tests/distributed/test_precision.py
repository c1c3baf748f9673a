import torch

from collagan_dist.distributed import precision
from collagan_dist.distributed.precision import LossScale

CPU = torch.device("cpu")


def test_it_doubles_after_many_steps_up_to_its_maximum():
    scale = LossScale(CPU)
    start = float(scale.value)
    for _ in range(precision._GROWTH_INTERVAL - 1):
        scale.step_taken()
    assert float(scale.value) == start
    scale.step_taken()
    assert float(scale.value) == 2 * start
    scale.value.fill_(precision._MAX_SCALE)
    for _ in range(precision._GROWTH_INTERVAL):
        scale.step_taken()
    assert float(scale.value) == precision._MAX_SCALE


def test_it_halves_down_to_one_and_counts_anew():
    scale = LossScale(CPU)
    for _ in range(precision._GROWTH_INTERVAL - 1):
        scale.step_taken()
    start = float(scale.value)
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
