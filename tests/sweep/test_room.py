import re
import subprocess
import sys
import time

from tests.sweep.ray_nodes import growing_nodes
from tests.sweep.small import LR_SPACE, Sweep

COUNT = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level=40); print(sum(n['Alive'] for n in ray.nodes()))"


def alive(address: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", COUNT, address], text=True, timeout=120).split()[-1])


def test_a_cluster_grows_for_trials_and_shrinks(shards, tmp_path):
    """The head node holds no trial. What a trial takes is known from the node type; a larger trial is refused with the types."""
    with growing_nodes(cpus=2, most=1) as (address, _):
        sweep = Sweep(
            tmp_path, shards.folder, LR_SPACE, "--trials", 2, "--ray", address, "--cpus", 2, schedule__steps=4
        )
        sweep.run()
        assert [row["status"] for row in sweep.rows()] == ["done"] * 2
        sweep.words[sweep.words.index("--cpus") + 1] = 3
        assert re.search(r"can never place it; .*\n(.*\n)*  worker: 2 CPUs, 0 GPUs, up to 1 of them", sweep.run(4))
        last = time.monotonic() + 120
        while alive(address) > 1:
            assert time.monotonic() < last
