"""Rank, world size and rendezvous address from the environment variables of torchrun, srun and Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from collagan_dist.errors import ClusterError
from collagan_dist.types import World

# For each launcher: the variable that proves it, then rank, world size, local rank, local world size, node rank.
_TORCHRUN = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_RAY = ("COLLAGAN_RAY_TRIAL", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
# SLURM_PROCID proves nothing: the batch script has it, too.
_SRUN = (
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NODEID",
)

# Step ids from here on are Slurm's own: the batch script, the shell of salloc, ...
_FIRST_RESERVED_STEP = 0xFFFFFFF0


def detect_world(env: Mapping[str, str] = os.environ) -> World:
    """Return the world that this process's launcher describes; one process without a launcher."""
    # Innermost first: Ray workers and torchrun may run inside an srun step, whose variables they inherit.
    for launcher, names in (("ray", _RAY), ("torchrun", _TORCHRUN), ("srun", _SRUN)):
        if names[0] in env and not (launcher == "srun" and not _is_task(env)):
            return _world(launcher, names[1:], env)
    return World()


def rendezvous_address(env: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return host and port of the rendezvous: MASTER_ADDR and MASTER_PORT, by default an srun step's first node.

    Raises ClusterError if they are missing or invalid.
    """
    host, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    if detect_world(env).launcher == "srun":
        host = host or first_host(env.get("SLURM_STEP_NODELIST", ""))
        port = port or str(_step_port(env))
    if not host or not port or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ClusterError(
            f"no address for the rendezvous of the ranks: MASTER_ADDR is {host or 'not set'}, MASTER_PORT is {port or 'not set'}; "
            "start through torchrun or srun, or set both (the port from 1 to 65535)"
        )
    return host, int(port)


def launcher_hosts_store(env: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher hosts the rendezvous store (torchrun's agent), not rank 0."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def start_id(env: Mapping[str, str] = os.environ) -> str:
    """Return an id that all ranks of this start share, and that other jobs do not."""
    # Not unique for restarts: each of torchrun's agents counts its own, and does not count a change of the nodes.
    launcher = detect_world(env).launcher
    if launcher == "srun":
        return f"{env.get('SLURM_JOB_ID')}.{env['SLURM_STEP_ID']}"
    return env.get({"torchrun": _TORCHRUN, "ray": _RAY}[launcher][0], "") if launcher != "alone" else launcher


def first_host(nodes: str) -> str:
    """Return the first name of a node list as Slurm writes it: `n[08-11,15],x3` -> `n08`."""
    # A comma inside brackets does not end the first name.
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""


def _step_port(env: Mapping[str, str]) -> int:
    """Return a port from the job's ids, equal on all ranks of a step."""
    # Another port for each restart and each step: a former start may still listen, and steps may run side by side.
    # 20000-29999 lies below Linux's ephemeral ports (32768-60999).
    job, restart, step = (int(env.get(f"SLURM_{name}", 0) or 0) for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID"))
    return 20000 + (job * 10 + restart + step * 1009) % 10000


def _is_task(env: Mapping[str, str]) -> bool:
    """Return whether srun started this process, and it is not a job's batch script or interactive shell."""
    # SLURM_JOB_NAME is no help: steps that are started from salloc's shell are named `interactive`, like the shell.
    step = env["SLURM_STEP_ID"]
    return step.isdigit() and int(step) < _FIRST_RESERVED_STEP and "SLURM_STEP_NUM_TASKS" in env


def _world(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> World:
    try:
        rank, size, local_rank = (int(env[name]) for name in names[:3])
        node = int(env[names[4]])
        local_size = _tasks_on_node(node, env[names[3]]) if launcher == "srun" else int(env[names[3]])
    except (KeyError, ValueError) as error:
        raise ClusterError(
            f"started by {launcher}, but its variable {error} is missing or not a number; start through torchrun or srun"
        ) from None
    return World(rank, size, local_rank, local_size, node, launcher)


def _tasks_on_node(node: int, text: str) -> int:
    """Return the number of tasks on a node of the step, from Slurm's list for all nodes: `4(x2),3`."""
    runs = (re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(","))
    counts = [int(run[1]) for run in runs if run for _ in range(int(run[2] or 1))]
    if node >= len(counts):
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE ({text})")
    return counts[node]


def job_id(env: Mapping[str, str] = os.environ) -> str:
    """Return the launcher's id of this job, the same after a restart; "" without one."""
    if trial := env.get(_RAY[0]):
        return f"ray:{trial}"
    if number := env.get("SLURM_JOB_ID"):
        return f"slurm:{number}"
    name = env.get("TORCHELASTIC_RUN_ID", "none")  # "none" is torchrun's default, the same for all jobs
    return "" if name in ("", "none") else f"torchrun:{name}"


def start_label(env: Mapping[str, str] = os.environ) -> str:
    """Return the text that names this start of this job."""
    # slurm/common.sh compares it with the contents of RUN/requeue and RUN/failed.
    return f"{job_id(env) or 'no job'}, start {restart_counts(env).get('slurm', 0)}"


def restart_counts(env: Mapping[str, str] = os.environ) -> dict[str, int]:
    """Return how often `slurm` and `torchrun` have restarted this job, as far as they say so."""
    names = {"slurm": "SLURM_RESTART_COUNT", "torchrun": "TORCHELASTIC_RESTART_COUNT"}
    return {launcher: int(env[name]) for launcher, name in names.items() if env.get(name, "").isdigit()}
