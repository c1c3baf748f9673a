"""Ray Tune as the one that places legs, watches over them and starts those anew that the cluster took away.

Which leg comes next is asked of the sweep (a Tune searcher that hands out work, never a point twice), so Tune's own state is of no
use to anybody and is never read: it lies in OUT/.tune and goes with the start that made it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from collagan_dist.errors import ClusterError
from collagan_dist.sweep.leg import Work, leg

MAX_RESTARTS = 3  # of one leg, by what the cluster did to it
_LOOK = 2.0  # seconds between looks at what the cluster has
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "1000000",
}
# What Ray writes of an actor that is gone: what it means, the most telling first.
_SIGNS = {
    "memory usage threshold": "its node ran short of memory, and Ray ended its process",
    "node has died": "its node is gone",
    "node was terminated": "its node is gone",
    "is unavailable": "its node does not answer",
    "The actor died": "its process was killed: by the system when memory ran out, by somebody, or with its node",
}


@dataclass(frozen=True)
class Takes:
    """What one trial takes: so many workers (ranks), each with CPUs and GPUs; `spread` over nodes, or packed onto few.

    `gpus` None: one each where the cluster has any.
    """

    workers: int = 1
    cpus: float = 1
    gpus: float | None = None
    spread: bool = False

    def on(self, ray: Any) -> Takes:
        """The same, decided for a cluster."""
        return self if self.gpus is not None else replace(self, gpus=1.0 if ray.cluster_resources().get("GPU") else 0.0)

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")
        return f"{self.workers} workers of {each} each" if self.workers > 1 else f"one worker of {each}"

    def fit(self, nodes: list[dict[str, float]]) -> int:
        """How many trials nodes with such resources hold at a time."""
        return sum(self._on(node) for node in nodes) // self.workers

    def _on(self, node: dict[str, float]) -> int:
        """Workers that a node holds; a part of a GPU is a part of one GPU."""
        count = int(node.get("CPU", 0) / self.cpus + 1e-9) if self.cpus else 10**6
        gpus = self.gpus or 0
        if gpus >= 1:
            count = min(count, int(node.get("GPU", 0) // gpus))
        elif gpus:
            count = min(count, int(node.get("GPU", 0)) * int(1 / gpus + 1e-9))
        return count


class Source(Protocol):
    """What is to be done. All methods are called from one thread."""

    def next(self) -> tuple[int, Work] | str:
        """(number of the trial, its next leg), or WAIT, or DONE."""
        ...

    def ended(self, number: int, outcome: dict[str, Any]) -> None: ...

    def lost(self, number: int, reason: str) -> None:
        """The cluster took a leg away more often than MAX_RESTARTS."""
        ...

    def restarted(self, number: int, reason: str) -> None: ...

    def tick(self) -> bool:
        """Called several times a second; whether to begin no more legs."""
        ...


def nodes(ray: Any) -> dict[str, dict[str, float]]:
    """Resources of every living node, by its name."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})": node["Resources"]
        for node in alive
    }


def check_resources(ray: Any, takes: Takes) -> int:
    """How many trials run at a time. Raises ClusterError, with the numbers, when the cluster never has what one takes."""
    found = nodes(ray)
    count = takes.fit(list(found.values()))
    if count:
        return count
    has = "\n  ".join(f"{name}: {r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for name, r in found.items())
    raise ClusterError(
        f"a trial takes {takes}, and this Ray cluster can never place it; its nodes:\n  {has}\n"
        "give less by --workers, --cpus or --gpus, or start more nodes"
    )


def execute(source: Source, ray: Any, takes: Takes, out: Path) -> None:
    """Do the legs of a source until it is DONE, or until `tick` says to end and those that run have."""
    os.environ.update(_ENVIRONMENT)
    from ray import tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    bundle = {"CPU": float(takes.cpus), **({"GPU": float(takes.gpus)} if takes.gpus else {})}
    group = tune.PlacementGroupFactory([bundle] * takes.workers, strategy="SPREAD" if takes.spread else "PACK")
    state = out / ".tune"
    shutil.rmtree(state, ignore_errors=True)
    searcher = _searcher(source, lambda: takes.fit(list(nodes(ray).values())))
    try:
        tune.Tuner(
            tune.with_resources(leg, group),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="legs", storage_path=str(state), verbose=0, callbacks=[_callback(source, searcher)],
                failure_config=tune.FailureConfig(max_failures=MAX_RESTARTS),
            ),
        ).fit()  # fmt: skip
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _searcher(source: Source, capacity: Callable[[], int]) -> Any:
    from ray.tune.search import Searcher

    class Legs(Searcher):
        """Tune asks for points; it gets legs, as many at a time as the cluster has room for, each chosen as late as possible."""

        def __init__(self, source: Source, capacity: Callable[[], int]) -> None:
            super().__init__(metric=None, mode=None)
            self.source, self.capacity = source, capacity
            self.numbers: dict[str, int] = {}  # by Tune's name of a leg, the trial's
            self._room, self._looked = 0, -_LOOK

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            if self.source.tick():
                return Searcher.FINISHED
            if time.monotonic() - self._looked >= _LOOK:
                self._room, self._looked = self.capacity(), time.monotonic()
            if len(self.numbers) >= self._room:
                return None
            found = self.source.next()
            if isinstance(found, str):
                return Searcher.FINISHED if found == "done" else None
            self.numbers[trial_id], work = found
            return {"work": asdict(work)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if not error:  # of an error the callback knows more
                self.source.ended(self.numbers.pop(trial_id), result or {})

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune pickles it, for nobody

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    return Legs(source, capacity)


def _callback(source: Source, searcher: Any) -> Any:
    from ray import tune

    class Watch(tune.Callback):
        def __init__(self, source: Source, searcher: Any) -> None:
            self.source, self.searcher = source, searcher

        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            self.source.tick()

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.source.restarted(self.searcher.numbers[trial.trial_id], _reason(trial))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.source.lost(self.searcher.numbers.pop(trial.trial_id), _reason(trial))

        def __getstate__(self) -> dict[str, Any]:
            return {}

    return Watch(source, searcher)


def _reason(trial: Any) -> str:
    """Why a leg ended, in a line: our own error's words, or Ray's."""
    try:
        text = Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return "its process is gone"
    text = text[text.rfind("Failure # ") :]
    if ours := re.findall(r"^(?:collagan_dist\.errors\.)?ClusterError: (.*)$", text, re.MULTILINE):
        return ours[-1]
    for sign, words in _SIGNS.items():
        if sign in text:
            return words
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its process is gone"
