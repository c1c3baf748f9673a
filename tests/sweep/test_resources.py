import re

import numpy as np
import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.sweep.resources import TrialResources
from tests.sweep.small import HALVING, Sweep


@pytest.mark.parametrize(
    ("resources", "nodes", "trials"),
    [
        (TrialResources(), [{"CPU": 4}, {"CPU": 2}], 6),
        (TrialResources(cpus=3), [{"CPU": 4}, {"CPU": 2}], 1),
        (TrialResources(cpus=0.1), [{"CPU": 1}], 10),  # 1 / 0.1 is a little less than 10 in floating point
        (TrialResources(workers=2), [{"CPU": 1}, {"CPU": 1}], 1),  # the ranks of a trial may lie on two nodes
        (TrialResources(workers=3, cpus=2), [{"CPU": 4}, {"CPU": 3}], 1),
        (TrialResources(gpus=1.0), [{"CPU": 8, "GPU": 2}, {"CPU": 8}], 2),
        (TrialResources(gpus=2.0), [{"CPU": 8, "GPU": 3}], 1),
        (TrialResources(gpus=0.25), [{"CPU": 8, "GPU": 1}], 4),
        (TrialResources(gpus=0.6), [{"CPU": 8, "GPU": 3}], 3),  # parts of one GPU, never of two
        (TrialResources(), [], 0),
    ],
)  # fmt: skip
def test_capacity(resources, nodes, trials):
    assert resources.capacity(nodes) == trials


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("workers", [1, 12, np.int64(2)], [0, -1, 1.5, "2", None]),
        ("cpus", [1, 0.1, 2.0], [0, -1, float("nan"), float("inf"), "2", None]),
        ("gpus", [None, 0, 0.25, 1, 2.0], [1.5, -1, float("nan"), float("inf"), 1000, "1"]),
    ],
)
def test_numbers_that_no_trial_can_have(name, good, bad):
    assert [getattr(TrialResources(**{name: one}), name) for one in good] == good
    for one in bad:
        with pytest.raises(ConfigError, match=rf"^{name}={re.escape(repr(one))} is not a (whole )?number "):
            TrialResources(**{name: one})


def test_resources_as_text():
    assert str(TrialResources()) == "one worker of 1 CPU"
    assert str(TrialResources(4, 8, 0.5)) == "4 workers of 8 CPUs and 0.5 GPUs each"
    assert TrialResources(cpus=2, gpus=1.0).bundle() == {"CPU": 2.0, "GPU": 1.0}


def test_a_trial_that_can_never_be_placed(shards, tmp_path):
    sweep = Sweep(tmp_path, shards.folder, HALVING, "--cpus", 500, "--trials", 3)
    said = sweep.run(4)
    assert re.search(
        r"a trial takes one worker of 500 CPUs, and this Ray cluster can never place it; its nodes:\n  .*: \d+ CPUs, 0 GPUs",
        said,
    ), said
    assert not (sweep.out / "trials").exists()
