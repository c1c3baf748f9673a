"""Rank, world size and rendezvous address from the environment variables of launchers.

Ray, torchrun and srun; MPI's; RANK and WORLD_SIZE beside MASTER_ADDR and MASTER_PORT, as Kubeflow, deepspeed and loops of one's own
set them. A world that is not understood is refused: ranks that each take themselves for the only one would train apart.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from collagan_dist import shell
from collagan_dist.errors import ClusterError, ConfigError
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

# For each way to say it: rank, world size, then names of local rank and of local world size; the first that is set counts.
_PLAIN = {
    "mpi": (
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", ("OMPI_COMM_WORLD_LOCAL_RANK",), ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
        ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", ("MV2_COMM_WORLD_LOCAL_RANK",), ("MV2_COMM_WORLD_LOCAL_SIZE",)),
        ("PMI_RANK", "PMI_SIZE", ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"), ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE")),
        ("PMIX_RANK", "PMIX_SIZE", (), ()),  # nobody sets a size: only what explains the rank otherwise is believed
    ),
    "environment": (("RANK", "WORLD_SIZE", ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")),),
}  # fmt: skip
_MEND = "start through torchrun or srun, or unset them"

_MIN_SECRET_CHARACTERS, _MAX_SECRET_BYTES = 16, 4096

# Step ids from here on are Slurm's own: the batch script, the shell of salloc, ...
_FIRST_RESERVED_STEP = 0xFFFFFFF0


def detect_world(env: Mapping[str, str] = os.environ) -> World:
    """Return the world that this process's launcher describes; one process without a launcher.

    Raises ConfigError for a world that is not understood, ClusterError where a known launcher's variables are broken.
    """
    # Innermost first: Ray workers and torchrun may run inside an srun step, whose variables they inherit.
    for launcher, names in (("ray", _RAY), ("torchrun", _TORCHRUN)):
        if names[0] in env:
            return _world(launcher, names[1:], env)
    step = _step(env)
    found = [(words, launcher) for launcher, ways in _PLAIN.items() for words in ways if _is_said(words, step, env)]
    worlds = [(_plain_world(words, launcher, env), words) for words, launcher in found]
    # A world of one says nothing: mpirun may start torchrun's agent, and `srun --pty` a shell for any launcher.
    inner = [(world, words) for world, words in worlds if world.size > 1]
    if not inner or all((world.rank, world.size) == (step.rank, step.size) for world, _ in inner):
        return step
    first, words = inner[0]
    for other, other_words in [*inner[1:], *([(step, _SRUN[1:])] if step.size == first.size else [])]:
        if (other.rank, other.size) != (first.rank, first.size):
            raise ConfigError(
                f"{words[0]} and {words[1]} say rank {first.rank} of {first.size}, {other_words[0]} and {other_words[1]} say rank "
                f"{other.rank} of {other.size}: unset those that are left over"
            )
    # Last, since a step of the same world has an address of its own.
    _check_address(words, first.size, env)
    return first


def _step(env: Mapping[str, str]) -> World:
    """Return the world of the srun step whose task this process is; one process without a step."""
    if _SRUN[0] not in env or not _is_task(env):
        return World()
    if env.get("SLURM_HET_SIZE", "1") != "1":
        # Each component has a step's variables of its own, and would train apart.
        raise ConfigError(
            f"a heterogeneous job (SLURM_HET_SIZE={env['SLURM_HET_SIZE']}): ranks of several components do not train together; "
            "submit a job of one component"
        )
    return _world("srun", _SRUN[1:], env)


def _is_said(words: tuple[Any, ...], step: World, env: Mapping[str, str]) -> bool:
    """Return whether rank and world size are set. Raises ConfigError if one of them is, and nothing else explains it."""
    rank, size = env.get(words[0]), env.get(words[1])
    if rank is None and size is None:
        return False
    if rank is not None and size is not None:
        return True
    # Batch scripts export WORLD_SIZE for their steps. Words such as RANK=captain are not a launcher's.
    alone = size in (None, "1") and not _is_number(rank or "")
    explained = (rank or size) == str(step.rank if size is None else step.size) and step.launcher == "srun"
    if alone or explained or (words[0] == "PMIX_RANK" and "OMPI_COMM_WORLD_SIZE" in env):
        return False
    known, missing = (words[1], words[0]) if rank is None else (words[0], words[1])
    raise ConfigError(f"{known}={env[known]} is set without {missing}, by a launcher that is not known; {_MEND}")


def _plain_world(words: tuple[Any, ...], launcher: str, env: Mapping[str, str]) -> World:
    """Return the world that rank and world size describe. Raises ConfigError if they cannot be right."""
    rank_name, size_name, local_ranks, local_sizes = words
    rank, size = _number(rank_name, env), _number(size_name, env)
    if rank >= size:
        raise ConfigError(f"{rank_name}={rank} and {size_name}={size}: ranks count from 0; {_MEND}")
    if size == 1:
        return World()
    local_rank_name, local_size_name = (
        next((n for n in names if n in env), "") for names in (local_ranks, local_sizes)
    )
    local_rank = _number(local_rank_name, env) if local_rank_name else None
    local_size = _number(local_size_name, env) if local_size_name else None
    if is_loopback_name(env.get("MASTER_ADDR", "")):
        # All ranks are on this machine, so the numbers are known; another local rank would take another rank's GPU.
        if (local_rank, local_size) not in {(r, s) for r in (None, rank) for s in (None, size)}:
            raise ConfigError(
                f"MASTER_ADDR={env['MASTER_ADDR']} says that all {size} ranks are on this machine, but local rank and size of rank {rank} are "
                f"{local_rank} and {local_size}; set LOCAL_RANK={rank} and LOCAL_WORLD_SIZE={size}, or MASTER_ADDR to a name that all hosts know"
            )
        local_rank, local_size = rank, size
    elif local_rank is None:
        local_rank, local_size = 0, 1  # one process a machine, as Kubeflow starts them
    if local_size is None or local_rank >= local_size or local_size > size:
        raise ConfigError(
            f"rank {rank} of {size} has local rank {local_rank}, and {'no' if local_size is None else local_size} local world size; "
            "set LOCAL_WORLD_SIZE to the number of ranks on this machine"
        )
    node = next((int(env[n]) for n in ("GROUP_RANK", "NODE_RANK") if _is_number(env.get(n, ""))), rank // local_size)
    return World(rank, size, local_rank, local_size, node, launcher)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _number(name: str, env: Mapping[str, str]) -> int:
    if not _is_number(env[name]):
        raise ConfigError(f"{name}={env[name]} is not a number; {_MEND}")
    return int(env[name])


def _check_address(words: tuple[Any, ...], size: int, env: Mapping[str, str]) -> None:
    """Raise ConfigError if a launcher that is not known for it does not say where its ranks meet."""
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not env.get(name)]:
        raise ConfigError(
            f"{words[0]} and {words[1]}={size} are set by a launcher that does not say where ranks meet: {' and '.join(missing)} "
            "not set; set MASTER_ADDR to the host of rank 0 and MASTER_PORT to a free port there on all ranks "
            f"(mpirun: -x MASTER_ADDR=... -x MASTER_PORT=...), or {_MEND}"
        )


def is_loopback_name(host: str) -> bool:
    """Return whether a name or address means this machine on every machine."""
    return host in ("localhost", "::1") or host.startswith("127.")


def rendezvous_address(env: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Return host and port of the rendezvous: MASTER_ADDR and MASTER_PORT, by default an srun step's first node.

    Raises ClusterError if they are missing or invalid.
    """
    host, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    if detect_world(env).launcher == "srun":
        host = host or first_host(env.get("SLURM_STEP_NODELIST", ""))
        port = port or str(_step_port(env))
    if not host or not port or not _is_number(port) or not 0 < int(port) < 2**16:
        raise ClusterError(
            f"no address for the rendezvous of the ranks: MASTER_ADDR is {host or 'not set'}, MASTER_PORT is {port or 'not set'}; "
            "start through torchrun or srun, or set both (the port from 1 to 65535)"
        )
    return host, int(port)


def other_nodes(env: Mapping[str, str] = os.environ) -> list[str]:
    """Return the job's nodes but that of rank 0, where slurm/common.sh says them."""
    return env.get("COLLAGAN_NODES", "").split()[1:]


def rendezvous_secret(env: Mapping[str, str] = os.environ) -> bytes:
    """Return the secret of this start that all its ranks know, empty without one. Raises ConfigError if it cannot be used.

    It comes by an environment variable or a file that only its owner can read, never on a command line, which `ps` shows.
    """
    text, path = env.get("COLLAGAN_RENDEZVOUS_SECRET", ""), env.get("COLLAGAN_RENDEZVOUS_SECRET_FILE", "")
    where = "COLLAGAN_RENDEZVOUS_SECRET"
    if path and not text:
        where = f"COLLAGAN_RENDEZVOUS_SECRET_FILE={path}"
        text = _read_private(path, where)
    if not text and not path:
        return b""
    if not _MIN_SECRET_CHARACTERS <= len(text) <= _MAX_SECRET_BYTES:
        raise ConfigError(
            f"{where}: a secret has {_MIN_SECRET_CHARACTERS} to {_MAX_SECRET_BYTES} characters; make one by `openssl rand -hex 32`"
        )
    return text.encode(errors="surrogateescape")


def _read_private(path: str, where: str) -> str:
    """Return the text of a file that nobody but its owner, this user, can read."""
    try:
        # Not blocking: a pipe would be waited for.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise ConfigError(
                    f"{where}: must be a file of your own that nobody else can read: {shell.join('chmod', '600', path)}"
                )
            return file.read(_MAX_SECRET_BYTES + 2).decode(errors="surrogateescape").strip()
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None


def launcher_hosts_store(env: Mapping[str, str] = os.environ) -> bool:
    """Return whether the launcher hosts the rendezvous store (torchrun's agent), not rank 0."""
    return env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def start_id(env: Mapping[str, str] = os.environ) -> str:
    """Return an id that all ranks of this start share, and that other jobs do not."""
    # Not unique for restarts: each of torchrun's agents counts its own, and does not count a change of the nodes.
    launcher = detect_world(env).launcher
    if launcher == "srun":
        return f"{env.get('SLURM_JOB_ID')}.{env['SLURM_STEP_ID']}"
    return (
        env.get({"torchrun": _TORCHRUN, "ray": _RAY}[launcher][0], "") if launcher in ("torchrun", "ray") else launcher
    )


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
    return step.isascii() and step.isdigit() and int(step[:20]) < _FIRST_RESERVED_STEP and "SLURM_STEP_NUM_TASKS" in env


def _world(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> World:
    try:
        rank, size, local_rank = (int(env[name]) for name in names[:3])
        node = int(env[names[4]])
        local_size = _tasks_on_node(node, env[names[3]]) if launcher == "srun" else int(env[names[3]])
    except (KeyError, ValueError) as error:
        raise ClusterError(
            f"started by {launcher}, but its variable {error} is missing or not a number; start through torchrun or srun"
        ) from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size and node >= 0):
        raise ClusterError(
            f"started by {launcher}, whose variables say rank {rank} of {size}, local rank {local_rank} of {local_size}, node {node}, which "
            "cannot be; start through torchrun or srun"
        )
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
    return {launcher: int(env[name]) for launcher, name in names.items() if _is_number(env.get(name, ""))}
