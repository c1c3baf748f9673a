import os

import pytest

from collagan_dist.distributed.world import (
    detect_world,
    first_host,
    job_id,
    rendezvous_address,
    rendezvous_secret,
    restart_counts,
    start_label,
)
from collagan_dist.errors import ClusterError, ConfigError
from collagan_dist.types import World

NAMES = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
TORCHRUN = dict(zip(NAMES, "158141", strict=True))
STEP = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_NODEID": "1",
}  # fmt: skip
RAY = {"COLLAGAN_RAY_TRIAL": "trial_7", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": "1"}  # fmt: skip
BATCH_SHELL = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "4"}


@pytest.mark.parametrize(
    ("env", "world"),
    [
        ({}, World()),
        (TORCHRUN, World(5, 8, 1, 4, 1, "torchrun")),
        (STEP, World(3, 4, 1, 2, 1, "srun")),
        (RAY, World(1, 2, 0, 1, 1, "ray")),
        # torchrun and Ray may run inside a Slurm job, whose variables their processes inherit: the innermost counts.
        ({**STEP, **TORCHRUN}, World(5, 8, 1, 4, 1, "torchrun")),
        ({**STEP, **TORCHRUN, **RAY}, World(1, 2, 0, 1, 1, "ray")),
        (BATCH_SHELL, World()),
        # salloc's shell is a step of Slurm's own; steps that are started from it have its name.
        ({**STEP, "SLURM_JOB_NAME": "interactive"}, World(3, 4, 1, 2, 1, "srun")),
        ({**STEP, "SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": "4294967290"}, World()),
        ({**STEP, "SLURM_STEP_ID": "4294967291"}, World()),
    ],
)
def test_the_world_of_each_launcher(env, world):
    assert detect_world(env) == world


def plain(rank: object, size: object, **more: object) -> dict[str, str]:
    """The variables of a launcher that has no name of its own."""
    given = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "host-a", "MASTER_PORT": 29500} | more
    return {name: str(value) for name, value in given.items() if value is not None}


def mpi(rank: int, size: int, local_rank: int = 0, local_size: int = 1, **more: object) -> dict[str, str]:
    words = dict(zip(("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"), (rank, size, local_rank, local_size), strict=True))
    return {f"OMPI_COMM_WORLD_{word}": str(value) for word, value in words.items()} | plain(None, None, **more)


ONE_TASK = STEP | {
    "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_NODEID": "0", "SLURM_LOCALID": "0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("env", "world"),
    [
        (plain(1, 2, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1), World(1, 2, 0, 1, 1, "environment")),
        (plain(1, 2), World(1, 2, 0, 1, 1, "environment")),  # Kubeflow: one process a machine
        (plain(3, 4, LOCAL_RANK=1, LOCAL_SIZE=2), World(3, 4, 1, 2, 1, "environment")),  # deepspeed
        (plain(1, 2, LOCAL_RANK=1, MASTER_ADDR="127.0.0.1"), World(1, 2, 1, 2, 0, "environment")),
        (plain(1, 2, MASTER_ADDR="localhost"), World(1, 2, 1, 2, 0, "environment")),
        (plain(2, 4, LOCAL_RANK=0, LOCAL_WORLD_SIZE=1, NODE_RANK=2), World(2, 4, 0, 1, 2, "environment")),
        (plain(0, 1), World()),
        (plain("captain", None), World()),
        (plain(None, None, PMI_RANK=3, PMI_SIZE=4, MPI_LOCALRANKID=1, MPI_LOCALNRANKS=2), World(3, 4, 1, 2, 1, "mpi")),
        (mpi(3, 4, 1, 2, PMIX_RANK=3), World(3, 4, 1, 2, 1, "mpi")),
        (mpi(0, 1), World()),
        (mpi(3, 4, 1, 2, RANK=3, WORLD_SIZE=4), World(3, 4, 1, 2, 1, "mpi")),  # a wrapper that translates
        # Inside an srun step: what says the same is srun's own, what says another world is further in.
        ({**STEP, **plain(3, 4), "PMI_RANK": "3", "PMI_SIZE": "4", "PMIX_RANK": "3"}, World(3, 4, 1, 2, 1, "srun")),
        ({**STEP, "WORLD_SIZE": "4"}, World(3, 4, 1, 2, 1, "srun")),
        ({**STEP, **mpi(5, 6, 1, 2)}, World(5, 6, 1, 2, 2, "mpi")),  # mpirun starts its agents by srun
        ({**ONE_TASK, **plain(1, 2)}, World(1, 2, 0, 1, 1, "environment")),  # in the shell of `srun --pty bash`
        (ONE_TASK, World(launcher="srun")),
        ({**mpi(0, 2), **TORCHRUN}, World(5, 8, 1, 4, 1, "torchrun")),
        ({**mpi(0, 2), **RAY}, World(1, 2, 0, 1, 1, "ray")),
        ({**STEP, "SLURM_HET_SIZE": "2", **TORCHRUN}, World(5, 8, 1, 4, 1, "torchrun")),
    ],
)
def test_the_world_of_launchers_without_a_name(env, world):
    assert detect_world(env) == world


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (plain(1, 2, MASTER_ADDR=None), "WORLD_SIZE=2 .*MASTER_ADDR not set"),
        (plain(1, 2, MASTER_PORT=None, MASTER_ADDR=None), "MASTER_ADDR and MASTER_PORT not set; .*torchrun or srun, or unset"),
        (mpi(1, 2, MASTER_ADDR=None), "OMPI_COMM_WORLD_SIZE=2 .*mpirun: -x MASTER_ADDR"),
        (plain(1, None), "RANK=1 is set without WORLD_SIZE"),
        (plain(None, 2), "WORLD_SIZE=2 is set without RANK"),
        ({"PMIX_RANK": "0"}, "PMIX_RANK=0 is set without PMIX_SIZE"),
        (plain(2, 2), "RANK=2 and WORLD_SIZE=2"),
        (plain("x", 2), "RANK=x is not a number"), (plain("²", 2), "RANK=² is not a number"),
        (plain(0, "9" * 20), "is not a number"),
        (plain(-1, 2), "RANK=-1 is not a number"),
        (plain(1, 2, LOCAL_RANK=0, MASTER_ADDR="127.0.0.1"), "LOCAL_RANK=1 and LOCAL_WORLD_SIZE=2"),
        (plain(3, 4, LOCAL_RANK=1), "no local world size; set LOCAL_WORLD_SIZE"),
        (plain(3, 4, LOCAL_RANK=2, LOCAL_WORLD_SIZE=2), "LOCAL_WORLD_SIZE"),
        (mpi(1, 2, RANK=0, WORLD_SIZE=2), "rank 1 of 2, .*rank 0 of 2: unset"),
        ({**STEP, **plain(0, 4)}, "RANK and WORLD_SIZE say rank 0 of 4, SLURM_PROCID and SLURM_STEP_NUM_TASKS say rank 3 of 4"),
        ({**STEP, "RANK": "0"}, "RANK=0 is set without WORLD_SIZE"),
        ({**STEP, "SLURM_HET_SIZE": "2"}, "heterogeneous job"),
    ],
)  # fmt: skip
def test_a_world_that_is_not_understood_is_never_taken_for_one(env, words):
    with pytest.raises(ConfigError, match=words):
        detect_world(env)


def test_broken_variables_are_named():
    with pytest.raises(ClusterError, match="WORLD_SIZE"):
        detect_world({k: v for k, v in TORCHRUN.items() if k != "WORLD_SIZE"})
    for wrong in ({"RANK": "-1"}, {"RANK": "99"}, {"LOCAL_RANK": "99"}, {"GROUP_RANK": "-1"}):
        with pytest.raises(ClusterError, match="which cannot be"):
            detect_world({**TORCHRUN, **wrong})


def test_nodes_of_a_step_may_have_other_numbers_of_tasks():
    step = {**STEP, "SLURM_STEP_NUM_TASKS": "11", "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}
    assert [detect_world({**step, "SLURM_NODEID": str(node)}).local_size for node in range(3)] == [4, 4, 3]
    with pytest.raises(ClusterError, match="SLURM_STEP_TASKS_PER_NODE"):
        detect_world({**step, "SLURM_NODEID": "3"})


def test_the_rendezvous_address():
    """MASTER_ADDR and MASTER_PORT, else an srun step's first node and a port of this start's own."""
    assert rendezvous_address({**TORCHRUN, "MASTER_ADDR": "a", "MASTER_PORT": "29500"}) == ("a", 29500)
    step = {**STEP, "SLURM_STEP_NODELIST": "node-b[08-11,15],x3"}
    host, port = rendezvous_address(step)
    restarted = rendezvous_address({**step, "SLURM_RESTART_COUNT": "1"})[1]
    other_step = rendezvous_address({**step, "SLURM_STEP_ID": "1"})[1]
    assert host == "node-b08" and len({port, restarted, other_step}) == 3 and 20000 <= port < 30000
    for wrong in (
        {},
        {"MASTER_PORT": "1"},
        *({"MASTER_ADDR": "a", "MASTER_PORT": port} for port in ("", "port", "70000")),
    ):
        with pytest.raises(ClusterError, match="MASTER_PORT"):
            rendezvous_address({**TORCHRUN, **wrong})


@pytest.mark.parametrize(("nodes", "first"), [("n1", "n1"), ("n1,n[3-4]", "n1"), ("r[2-3]n[04,07]", "r2n04"), ("", "")])
def test_first_host(nodes, first):
    assert first_host(nodes) == first


def test_the_secret_of_a_start(tmp_path):
    """From the environment, or from a file that nobody else can read."""
    secret, file = "0123456789abcdef", tmp_path / "secret file"
    assert rendezvous_secret({}) == b"" and rendezvous_secret({"COLLAGAN_RENDEZVOUS_SECRET": secret}) == secret.encode()
    env = {"COLLAGAN_RENDEZVOUS_SECRET_FILE": str(file)}
    file.write_text(f"{secret}\n")
    for mode in (0o640, 0o604, 0o622):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="nobody else can read: chmod 600 '/"):
            rendezvous_secret(env)
    file.chmod(0o600)
    assert rendezvous_secret(env) == secret.encode()
    for wrong in ("", "short", "x" * 5000):
        file.write_text(wrong)
        with pytest.raises(ConfigError, match="openssl rand -hex 32"):
            rendezvous_secret(env)
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        rendezvous_secret(env)
    os.mkfifo(file, 0o600)
    with pytest.raises(ConfigError, match="must be a file of your own"):
        rendezvous_secret(env)
    with pytest.raises(ConfigError, match="16 to 4096 characters") as error:
        rendezvous_secret({"COLLAGAN_RENDEZVOUS_SECRET": "my secret"})
    assert "my secret" not in str(error.value)


def test_jobs_and_their_starts():
    slurm = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}
    assert job_id({**slurm, **RAY}) == "ray:trial_7" and job_id(slurm) == "slurm:7"
    assert job_id({"TORCHELASTIC_RUN_ID": "mine"}) == "torchrun:mine"
    assert job_id({"TORCHELASTIC_RUN_ID": "none"}) == job_id({}) == ""  # torchrun's default is not an id
    assert start_label(slurm) == "slurm:7, start 2" and start_label({}) == "no job, start 0"
    assert restart_counts({**slurm, "TORCHELASTIC_RESTART_COUNT": "1"}) == {"slurm": 2, "torchrun": 1}
