"""Who am I: the variables of launchers, turned into a World. The one file that reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from collagan_dist.contract import World
from collagan_dist.errors import ClusterError

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


def detect(env: Mapping[str, str] = os.environ) -> World:
    """The world by the launcher that started this process: Ray, then torchrun, then an srun step, then alone."""
    for launcher, names in (("ray", _RAY), ("torchrun", _TORCHRUN), ("srun", _SRUN)):
        if names[0] in env and not (launcher == "srun" and not _is_task(env)):
            return _world(launcher, names[1:], env)
    return World()


def rendezvous(env: Mapping[str, str] = os.environ) -> str:
    """host:port where the ranks of a run meet."""
    return f"{env.get('MASTER_ADDR', '?')}:{env.get('MASTER_PORT', '?')}"


def keeps_the_store(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the launcher itself listens at the meeting place (torchrun's agent), not rank 0."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _is_task(env: Mapping[str, str]) -> bool:
    """Whether this is a task of a step that srun started, not the batch script or an interactive shell of its job."""
    return (
        env["SLURM_STEP_ID"].isdigit() and "SLURM_STEP_NUM_TASKS" in env and env.get("SLURM_JOB_NAME") != "interactive"
    )


def _world(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> World:
    try:
        # Slurm writes tasks per node as "2" or "4(x2),3": the first number is enough where nodes are alike.
        rank, size, local_rank, local_size, node = (int(env[n].split("(")[0].split(",")[0]) for n in names)
    except (KeyError, ValueError) as error:
        raise ClusterError(
            f"started by {launcher}, but its variable {error} is missing or no number; start through torchrun or srun"
        ) from None
    return World(rank, size, local_rank, local_size, node, launcher)


def job(env: Mapping[str, str] = os.environ) -> str:
    """The launcher's name of what this process belongs to, the same after a restart; "" where it has none."""
    if number := env.get("SLURM_JOB_ID"):
        return f"slurm:{number}"
    name = env.get("TORCHELASTIC_RUN_ID", "none")  # torchrun's own default, which names nothing
    return "" if name in ("", "none") else f"torchrun:{name}"


def restarts(env: Mapping[str, str] = os.environ) -> dict[str, int]:
    """How often launchers started this anew: by `slurm` and `torchrun`, where they say so."""
    names = {"slurm": "SLURM_RESTART_COUNT", "torchrun": "TORCHELASTIC_RESTART_COUNT"}
    return {launcher: int(env[name]) for launcher, name in names.items() if env.get(name, "").isdigit()}
