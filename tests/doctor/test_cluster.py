import socket

import pytest

from collagan_dist.distributed import addresses, versions
from collagan_dist.doctor import cluster
from collagan_dist.types import World


@pytest.mark.parametrize(("own", "state"), [("127.0.1.1", "warning"), (None, "warning"), ("10.1.2.3", "ok")])
def test_a_host_whose_own_name_means_loopback(own, state, monkeypatch):
    """It matters only if ranks are on several nodes, and not where the interface is set."""
    monkeypatch.setattr(addresses, "resolve", lambda _: own)
    monkeypatch.setenv("MASTER_ADDR", "n1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    (found,) = cluster.check_names(World(0, 2, 0, 1, 0, "torchrun"))
    assert found.state == state and socket.gethostname() in found.text and "ranks meet at n1" in found.text
    (found,) = cluster.check_names(World(0, 2, 0, 2, 0, "torchrun"))
    assert found.state == ("ok" if own else "warning")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    (found,) = cluster.check_names(World(0, 2, 0, 1, 0, "torchrun"))
    assert found.state == "ok" and found.text.endswith("GLOO_SOCKET_IFNAME is eth1")


def test_a_host_that_does_not_know_its_name(monkeypatch):
    """Alone, too: torchrun asks for it, for minutes."""
    monkeypatch.setattr(addresses, "resolve", lambda _: None)
    (found,) = cluster.check_names(World())
    assert (
        found.state == "warning"
        and "does not know its own name" in found.text
        and "--local-addr=127.0.0.1" in found.mend
    )


def test_slurm_that_does_not_answer(tmp_path, monkeypatch):
    for name, script in (("srun", "echo slurm 24.05"), ("squeue", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert [finding.text for finding in cluster.check_slurm()] == ["slurm 24.05, outside a job"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (found,) = cluster.check_slurm()
    assert found.state == "warning" and "job 7 on ?; squeue does not answer" in found.text
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 1:30\n")
    assert [finding.text for finding in cluster.check_slurm()] == ["slurm 24.05, job 7 on ?, 1:30 left"]


def test_a_ray_cluster_without_a_token(monkeypatch):
    monkeypatch.setattr(versions, "library_version", lambda _: "2.52.0")
    monkeypatch.setenv("RAY_ADDRESS", "n1:6379")
    for mode, state in (("token", "ok"), ("disabled", "warning"), ("", "warning")):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        (found,) = cluster.check_ray()
        assert found.state == state, found
