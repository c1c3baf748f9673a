import torch

from collagan_dist.distributed import precision
from collagan_dist.distributed.precision import LossScale

CPU = torch.device("cpu")
YES, NO = torch.tensor(True), torch.tensor(False)


def step_taken(scale: LossScale) -> None:
    assert not scale.update(finite=YES, overflow=NO)


def lowered(scale: LossScale) -> bool:
    return bool(scale.update(finite=NO, overflow=YES))


def test_it_doubles_after_many_steps_and_halves_at_once():
    """From 1 to its maximum; a lower scale counts anew."""
    scale = LossScale(CPU)
    start = float(scale.value)
    for value, after in ((start, 2 * start), (precision._MAX_SCALE, precision._MAX_SCALE)):
        scale.value.fill_(value)
        for _ in range(precision._GROWTH_INTERVAL):
            assert float(scale.value) == value
            step_taken(scale)
        assert float(scale.value) == after
    scale.value.fill_(start)
    for _ in range(precision._GROWTH_INTERVAL - 1):
        step_taken(scale)
    assert lowered(scale) and float(scale.value) == start / 2
    step_taken(scale)
    assert float(scale.value) == start / 2
    scale.value.fill_(1)
    assert not lowered(scale) and float(scale.value) == 1


def test_a_checkpoint_keeps_scale_and_count():
    scale, other = LossScale(CPU), LossScale(CPU)
    assert lowered(scale)
    step_taken(scale)
    other.load(scale.state())
    assert torch.equal(other.state(), scale.state()) and other.state().tolist() == [precision._INITIAL_SCALE / 2, 1]


def test_a_step_of_which_a_loss_was_not_finite_is_no_overflow():
    """It says nothing of the scale, nor does an update that an earlier one has stopped."""
    scale = LossScale(CPU)
    step_taken(scale)
    before = scale.state()
    assert not scale.update(finite=NO, overflow=NO)
    assert torch.equal(before, scale.state())
