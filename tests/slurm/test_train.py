"""slurm/train.sh: one task a rank, over nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from collagan_dist.data.manifest import Manifest
from tests.conftest import ROOT, collagan
from tests.slurm.cluster import Cluster
from tests.training.small import equal, weights

pytestmark = pytest.mark.slurm
KEYS = ["model.widths.generator=4", "model.widths.discriminator=4", "data.image_size=32", "schedule.steps=4", "schedule.batch=4",
        "schedule.adv_from=2", "log.every=1", "runtime.threads=1"]  # fmt: skip


def test_two_nodes_learn_what_two_processes_learn(cluster: Cluster, shards: Manifest, tmp_path: Path) -> None:
    """srun's ranks on two nodes and torchrun's on this machine end with the same weights, bit for bit."""
    train = ["demo", "--data", shards.folder, *(word for key in KEYS for word in ("--set", key))]
    job = cluster.submit(
        ROOT / "slurm/train.sh",
        *train,
        "--run",
        "nodes",
        options=["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--time=5"],
        cwd=tmp_path,
    )
    done = cluster.wait(job, 120)
    assert (done.state, done.exit_code, done.nodes) == ("COMPLETED", 0, "n[1-2]"), cluster.log(job)
    assert "nodes: 4 steps done" in cluster.log(job)
    world = json.loads((tmp_path / "nodes/world.json").read_text())
    assert [(rank["host"], rank["launcher"]) for rank in world["ranks"]] == [("n1", "srun"), ("n2", "srun")]
    collagan("train", *train, "--run", "processes", cwd=tmp_path, ranks=2)
    assert equal(weights(tmp_path / "nodes", 4), weights(tmp_path / "processes", 4))
