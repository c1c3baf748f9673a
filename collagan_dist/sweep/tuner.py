"""Ray Tune as the one that places segments, keeps processes for the next ones, and says what the cluster took away.

Which segment comes next is asked of the sweep (a Tune searcher that hands out work, never a point twice), so Tune's own state is of no
use to anybody and is never read: it lies in OUT/.tune and goes with the start that made it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from collagan_dist.errors import ClusterError
from collagan_dist.sweep.segment import SegmentSpec, segment

_LOOK = 2.0  # seconds between looks at what the cluster has
_PATIENCE = 15.0  # seconds without any segment before it is asked why
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
class TrialResources:
    """What one trial takes: so many workers (ranks), each with CPUs and GPUs; `spread` over nodes, or packed onto few.

    `gpus` None: one each where the cluster has any.
    """

    workers: int = 1
    cpus: float = 1
    gpus: float | None = None
    spread: bool = False

    def on(self, ray: Any) -> TrialResources:
        """The same, decided for a cluster."""
        return self if self.gpus is not None else replace(self, gpus=1.0 if ray.cluster_resources().get("GPU") else 0.0)

    def __str__(self) -> str:
        each = f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}" + (
            f" and {self.gpus:g} GPU{'s' * (self.gpus != 1)}" if self.gpus else ""
        )
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

    def next(self) -> tuple[int, SegmentSpec] | str:
        """(number of the trial, its next segment), or WAIT, or DONE."""
        ...

    def ended(self, number: int, outcome: dict[str, Any]) -> None: ...

    def lost(self, number: int, reason: str) -> None:
        """The cluster took a segment away, or it could not go on where it was."""
        ...

    def waits(self, why: str | None) -> None:
        """Why nothing runs though there is work, or None."""
        ...

    def tick(self) -> bool:
        """Called several times a second; whether to begin no more segments."""
        ...


def nodes(ray: Any) -> dict[str, dict[str, float]]:
    """Resources of every living node, by its name."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    return {
        f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})": node["Resources"]
        for node in alive
    }


def unplaced(ray: Any) -> bool:
    """Whether anything on the cluster waits for resources that others have. (What is placed and still starting does not.)"""
    return any(group["state"] == "PENDING" for group in ray.util.placement_group_table().values())


def check_resources(ray: Any, resources: TrialResources) -> int:
    """How many trials run at a time. Raises ClusterError, with the numbers, when the cluster never has what one takes."""
    found = nodes(ray)
    count = resources.fit(list(found.values()))
    if count:
        return count
    has = "\n  ".join(f"{name}: {r.get('CPU', 0):g} CPUs, {r.get('GPU', 0):g} GPUs" for name, r in found.items())
    raise ClusterError(
        f"a trial takes {resources}, and this Ray cluster can never place it; its nodes:\n  {has}\n"
        "give less by --workers, --cpus or --gpus, or start more nodes"
    )


def execute(source: Source, ray: Any, resources: TrialResources, out: Path) -> None:
    """Do the segments of a source until it is DONE, or until `tick` says to end and those that run have."""
    os.environ.update(_ENVIRONMENT)
    from ray import tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    bundle = {"CPU": float(resources.cpus), **({"GPU": float(resources.gpus)} if resources.gpus else {})}
    group = tune.PlacementGroupFactory([bundle] * resources.workers, strategy="SPREAD" if resources.spread else "PACK")
    state = out / ".tune"
    shutil.rmtree(state, ignore_errors=True)
    adapter = TuneAdapter(source, lambda: resources.fit(list(nodes(ray).values())), lambda: unplaced(ray))
    searcher, callback, stopper = _adapters(adapter)
    try:
        tune.Tuner(
            tune.with_resources(segment, group),
            tune_config=tune.TuneConfig(search_alg=searcher, num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="segments", storage_path=str(state), verbose=0, callbacks=[callback], stop=stopper,
                failure_config=tune.FailureConfig(max_failures=0),  # who tries again, and what, is the source's to say
            ),
        ).fit()  # fmt: skip
    finally:
        shutil.rmtree(state, ignore_errors=True)
    if adapter.error is not None:
        raise adapter.error


class TuneAdapter:
    """Where Tune's parts meet the source: who has which segment, and what went wrong with the source itself, which Tune would hide."""

    def __init__(self, source: Source, capacity: Callable[[], int], unplaced: Callable[[], bool]) -> None:
        self.source, self.capacity, self.unplaced = source, capacity, unplaced
        self.error: Exception | None = None
        self._numbers: dict[str, int] = {}  # by Tune's name of a segment, the trial's
        self._room, self._crowded, self._looked = 0, False, -_LOOK
        self._stopping = self._busy = False
        self._idle_since = time.monotonic()

    def ask(self, name: str) -> SegmentSpec | str:
        """The next segment, WAIT or DONE; as many segments at a time as the cluster has room for, each chosen as late as possible."""
        self._do(self._tick)
        if self._stopping or self.error is not None:
            return "done"
        self._look()
        if len(self._numbers) >= self._room:
            return "wait"
        found = self._do(self.source.next)
        if found is None or isinstance(found, str):
            return found or "done"
        self._numbers[name], work = found
        return work

    def ended(self, name: str, outcome: dict[str, Any]) -> None:
        self._do(self.source.ended, self._numbers.pop(name), outcome)

    def step(self, trials: Sequence[Any]) -> None:
        """After each event. A segment that Tune ended for an error of its own is told here, since it tells nobody of some."""
        self._do(self._tick)
        self._busy = any(trial.status == "RUNNING" for trial in trials)
        if self._busy or not self._numbers:
            self._idle_since = time.monotonic()
        self._do(self.source.waits, self._held_up())
        for trial in [trial for trial in trials if trial.status == "ERROR" and trial.trial_id in self._numbers]:
            self._do(self.source.lost, self._numbers.pop(trial.trial_id), _reason(trial))

    def over(self) -> bool:
        """Whether to end now: what waits for room shall not be waited for."""
        return self.error is not None or (self._stopping and not self._busy)

    def _look(self) -> None:
        """At the cluster: how many segments the nodes that live hold at a time; and when nothing runs, whether that is for want of room."""
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._room, self._looked = self.capacity(), now
            self._crowded = now - self._idle_since > _PATIENCE and self.unplaced()

    def _held_up(self) -> str | None:
        if self._busy:
            return None
        self._look()
        if self._room == 0:
            return "no node of the cluster that lives has what a trial takes"
        return "others use what the cluster has" if self._crowded else None

    def _tick(self) -> None:
        self._stopping = self.source.tick()

    def _do(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            self.error = self.error or error
            return None


def _adapters(adapter: TuneAdapter) -> tuple[Any, Any, Any]:
    """The adapter as Tune's searcher, callback and stopper. Tune pickles them, for nobody: nothing of ours goes along."""
    from ray import tune
    from ray.tune.search import Searcher

    class Unpickled:
        def __getstate__(self) -> dict[str, Any]:
            return {}

    class SegmentSearcher(Unpickled, Searcher):
        """Tune asks for points; it gets segments."""

        def __init__(self, adapter: TuneAdapter) -> None:
            super().__init__(metric=None, mode=None)
            self.adapter = adapter

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            found = self.adapter.ask(trial_id)
            if isinstance(found, str):
                return Searcher.FINISHED if found == "done" else None
            return {"work": asdict(found)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if not error and result:  # of an error the trial itself knows more
                self.adapter.ended(trial_id, result)

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    class Watch(Unpickled, tune.Callback):
        def __init__(self, adapter: TuneAdapter) -> None:
            self.adapter = adapter

        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            self.adapter.step(trials)

    class StopWhenIdle(Unpickled, tune.Stopper):
        def __init__(self, adapter: TuneAdapter) -> None:
            self.adapter = adapter

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.adapter.over()

    return SegmentSearcher(adapter), Watch(adapter), StopWhenIdle(adapter)


def _reason(trial: Any) -> str:
    """Why a segment ended, in a line: our own error's words, or Ray's."""
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
