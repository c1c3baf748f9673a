"""Who am I, and where do we meet: the variables of launchers. The one file that reads them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from collagan_dist.errors import ClusterError
from collagan_dist.types import World

# Launcher: (the variable that proves it, then rank, size, local rank, local size, node). Batch shells of Slurm carry
# SLURM_PROCID too, so an srun step is known by SLURM_STEP_ID beside a task count of the step.
_TORCHRUN = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_RAY = ("COLLAGAN_RAY_TRIAL", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK")
_SRUN = (
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NODEID",
)

# Steps from here on are Slurm's own: the batch script, the shell of salloc, ...
_SLURM_OWN_STEPS = 0xFFFFFFF0


def detect_world(env: Mapping[str, str] = os.environ) -> World:
    """The world by the launcher that started this process: Ray, then torchrun, then an srun step, then alone."""
    for launcher, names in (("ray", _RAY), ("torchrun", _TORCHRUN), ("srun", _SRUN)):
        if names[0] in env and not (launcher == "srun" and not _is_task(env)):
            return _world(launcher, names[1:], env)
    return World()


def rendezvous_address(env: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port where the ranks of a run meet. An srun step that was told none meets on its first node.

    Raises ClusterError where neither is known.
    """
    host, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    if detect_world(env).launcher == "srun":
        host = host or first_host(env.get("SLURM_STEP_NODELIST", ""))
        port = port or str(_step_port(env))
    if not host or not port or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ClusterError(
            f"where do ranks meet? MASTER_ADDR is {host or 'not set'}, MASTER_PORT is {port or 'not set'}; "
            "start through torchrun or srun, or set both (the port from 1 to 65535)"
        )
    return host, int(port)


def launcher_hosts_store(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher itself listens at the meeting place (torchrun's agent), not rank 0."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def start_id(env: Mapping[str, str] = os.environ) -> str:
    """What all ranks of one start share and no other start has, as far as the launcher says it."""
    launcher = detect_world(env).launcher
    if launcher == "srun":
        return f"{env.get('SLURM_JOB_ID')}.{env['SLURM_STEP_ID']}"
    return env.get({"torchrun": _TORCHRUN, "ray": _RAY}[launcher][0], "") if launcher != "alone" else launcher


def first_host(nodes: str) -> str:
    """The first name of a node list as Slurm writes it: `n[08-11,15],x3` -> `n08`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0]) if first else ""


def _step_port(env: Mapping[str, str]) -> int:
    """A port of the step's own: a restarted job must not meet the one of its first life, nor two steps each other."""
    job, restart, step = (int(env.get(f"SLURM_{name}", 0) or 0) for name in ("JOB_ID", "RESTART_COUNT", "STEP_ID"))
    return 20000 + (job * 10 + restart + step * 1009) % 10000


def _is_task(env: Mapping[str, str]) -> bool:
    """Whether this is a task of a step that srun started, not the batch script or an interactive shell of its job.

    (The job's name does not tell: a step started from salloc's shell is named `interactive`, too.)
    """
    step = env["SLURM_STEP_ID"]
    return step.isdigit() and int(step) < _SLURM_OWN_STEPS and "SLURM_STEP_NUM_TASKS" in env


def _world(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> World:
    try:
        rank, size, local_rank = (int(env[name]) for name in names[:3])
        node = int(env[names[4]])
        local_size = _tasks_of(node, env[names[3]]) if launcher == "srun" else int(env[names[3]])
    except (KeyError, ValueError) as error:
        raise ClusterError(
            f"started by {launcher}, but its variable {error} is missing or no number; start through torchrun or srun"
        ) from None
    return World(rank, size, local_rank, local_size, node, launcher)


def _tasks_of(node: int, text: str) -> int:
    """Tasks of a node of the step, from Slurm's list for all of them: `4(x2),3`."""
    runs = (re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(","))
    counts = [int(run[1]) for run in runs if run for _ in range(int(run[2] or 1))]
    if node >= len(counts):
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE ({text})")
    return counts[node]


def job_id(env: Mapping[str, str] = os.environ) -> str:
    """The launcher's name of what this process belongs to, the same after a restart; "" where it has none."""
    if trial := env.get(_RAY[0]):
        return f"ray:{trial}"
    if number := env.get("SLURM_JOB_ID"):
        return f"slurm:{number}"
    name = env.get("TORCHELASTIC_RUN_ID", "none")  # torchrun's own default, which names nothing
    return "" if name in ("", "none") else f"torchrun:{name}"


def start_label(env: Mapping[str, str] = os.environ) -> str:
    """Which start of which job this is, as slurm/common.sh looks for it in what a run leaves for its batch script."""
    return f"{job_id(env) or 'no job'}, start {restart_counts(env).get('slurm', 0)}"


def restart_counts(env: Mapping[str, str] = os.environ) -> dict[str, int]:
    """How often launchers started this anew: by `slurm` and `torchrun`, where they say so."""
    names = {"slurm": "SLURM_RESTART_COUNT", "torchrun": "TORCHELASTIC_RESTART_COUNT"}
    return {launcher: int(env[name]) for launcher, name in names.items() if env.get(name, "").isdigit()}
