import pytest
import torch

from collagan_dist.distributed.group import Group
from collagan_dist.distributed.update import Verdict
from collagan_dist.errors import NumericError
from collagan_dist.runs.run_folder import Progress
from collagan_dist.training.guard import Diverged, Guard
from collagan_dist.types import World

NAN = Verdict("generator", finite=False, ranks=(0,))
OVERFLOW = Verdict("generator", finite=False, overflow=True)


def guard() -> Guard:
    return Guard(Group(World(), torch.device("cpu")))


def test_three_in_a_row_diverge():
    found = guard()
    for step in (1, 2):
        found.count_nonfinite(step, NAN)
    found.count_finite()  # ends the row
    for step in (4, 5):
        found.count_nonfinite(step, NAN)
    found.count_nonfinite(6, OVERFLOW)  # no part of the row, and no end of it
    with pytest.raises(Diverged) as caught:
        found.count_nonfinite(7, NAN)
    assert caught.value.steps == [4, 5, 7]


def test_a_row_goes_on_after_a_checkpoint_but_not_after_a_rollback():
    found = guard()
    assert found.resume(Progress(6, [1], bad_row=[4, 5])).left_out == [1] and found.bad_row == [4, 5]
    with pytest.raises(Diverged) as caught:
        found.count_nonfinite(6, NAN)
    found.roll_back(caught.value)
    assert found.resume(Progress(6, [1], bad_row=[4, 5])).left_out == [1, 4, 5, 6] and found.bad_row == []


def test_skipped_steps_add_up_until_the_fourth_rollback():
    found = guard()
    for number in range(3):
        found.roll_back(Diverged([10 * number, 10 * number + 1]))
    assert found.rollbacks == 3
    assert found.resume(Progress(5, [1, 3])).left_out == [0, 1, 3, 10, 11, 20, 21]
    with pytest.raises(NumericError, match=r"steps 31 to 32: NaN or Inf again, after 3 returns"):
        found.roll_back(Diverged([30, 31]))
