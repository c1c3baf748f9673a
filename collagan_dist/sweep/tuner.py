"""Ray Tune as the executor of a sweep: it places segments, reuses worker processes, and reports which of them the cluster lost.

Which segment comes next is not Tune's decision. A searcher of ours hands Tune one segment after the other, each as a trial of its
own. Tune's schedulers, searchers and restore are not used: they keep pickled state that lags behind what was trained. Its files
lie in OUT/.tune, are never read, and are removed with the start that wrote them.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from collagan_dist.sweep.room import Room
from collagan_dist.sweep.segment import SegmentSpec
from collagan_dist.sweep.worker import run_segment

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # How many segments may wait for a node: all that the source hands out. Tune's own limit, 1, hides them from an autoscaler.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    # Tune's own warning when nothing can be placed; the sweep has a better one.
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S_AUTOSCALER": "1000000",
}
# What Ray writes of an actor that is gone, and what it means; several can match, so the most specific comes first.
_LOSS_REASONS = {
    "memory usage threshold": "its node ran short of memory, and Ray ended its process",
    "node has died": "its node is gone",
    "node was terminated": "its node is gone",
    "is unavailable": "its node does not answer",
    "The actor died": "its process was killed: by the system when memory ran out, by somebody, or with its node",
}


class SegmentSource(Protocol):
    """Where segments come from and where their outcomes go. All methods are called from one thread."""

    def next_segment(self) -> tuple[int, SegmentSpec] | str:
        """Return (trial number, its next segment), WAIT or DONE."""
        ...

    def segment_ended(self, number: int, outcome: dict[str, Any], nodes: Sequence[str]) -> None:
        """A segment ended by itself, on the nodes with these ids."""
        ...

    def segment_lost(self, number: int, reason: str, nodes: Sequence[str]) -> None:
        """The cluster ended a segment, or it could not continue where it was. `nodes` is empty where that is unknown."""
        ...

    def set_waiting(self, numbers: Set[int], reason: str | None) -> Set[int]:
        """Which trials have a segment that is not placed yet, and why they wait, or None where that is no wonder.

        Return those whose segment is to be taken back; it then ends as one that was interrupted.
        """
        ...

    def poll(self) -> bool:
        """Return whether to stop: start no more segments, end with those that run. Called several times a second."""
        ...


def run_tune(source: SegmentSource, room: Room, out: Path) -> None:
    """Run the segments of a source until it is DONE, or until `poll` asks to stop and the running ones have ended."""
    os.environ.update(_ENVIRONMENT)
    from ray import tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    state = out / ".tune"  # on storage that all nodes share, as Tune wants it
    shutil.rmtree(state, ignore_errors=True)
    adapter = TuneAdapter(source, room)
    try:
        tune.Tuner(
            tune.with_resources(run_segment, lambda config: room.resources.placement(config["left_out"])),
            # reuse_actors: a new process would spend seconds on importing torch for each segment.
            tune_config=tune.TuneConfig(search_alg=_searcher(adapter), scheduler=_scheduler(adapter), num_samples=-1, reuse_actors=True),
            run_config=tune.RunConfig(
                name="segments", storage_path=str(state), verbose=0, callbacks=[_callback(adapter)], stop=_stopper(adapter),
                failure_config=tune.FailureConfig(max_failures=0),  # retries are the source's decision
            ),
        ).fit()  # fmt: skip
    finally:
        shutil.rmtree(state, ignore_errors=True)
    if adapter.error is not None:
        raise adapter.error


class TuneAdapter:
    """Connects Tune's searcher, scheduler, callback and stopper with a source, and records which Tune trial runs whose segment, and where.

    `error` is the first exception of the source; Tune itself would swallow it.
    """

    def __init__(self, source: SegmentSource, room: Room) -> None:
        self.source, self.room = source, room
        self.error: Exception | None = None
        self.stop_trial: Callable[[Any], None] = lambda trial: None  # Tune's own, once it has a trial
        self._numbers: dict[str, int] = {}  # sweep's trial number by Tune's trial id
        self._nodes: dict[str, tuple[str, ...]] = {}  # ids of the nodes of a segment that runs, by Tune's trial id
        self._stopping = self._busy = False

    def ask(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next segment as the configuration of a Tune trial, WAIT or DONE."""
        self._call(self._poll_source)
        if self._stopping or self.error is not None:
            return "done"
        if len(self._numbers) >= (self._call(lambda: self.room.slots) or 0):
            return "wait"
        found = self._call(self.source.next_segment)
        if found is None or isinstance(found, str):
            return found or "done"
        self._numbers[trial_id], spec = found
        return {"spec": asdict(spec), "left_out": sorted(self.room.left_out)}

    def ended(self, trial_id: str, outcome: dict[str, Any]) -> None:
        self._call(self.source.segment_ended, self._numbers.pop(trial_id), outcome, self._nodes.pop(trial_id, ()))

    def step(self, tune_trials: Sequence[Any]) -> None:
        """Handle one event of Tune's loop."""
        self._call(self._poll_source)
        ours = [trial for trial in tune_trials if trial.trial_id in self._numbers]
        running = [trial for trial in ours if trial.status == "RUNNING"]
        for trial in running:
            # Now, since the placement group of a lost node is placed anew elsewhere.
            if trial.trial_id not in self._nodes and (actor := trial.temporary_state.ray_actor) is not None:
                self._nodes[trial.trial_id] = _nodes_of(actor._actor_id)
        self._busy = bool(running)
        waiting = {self._numbers[trial.trial_id]: trial for trial in ours if trial.status == "PENDING"}
        if not waiting:
            self.room.waits_since = time.monotonic()
        # Not asked while all that was handed out runs: this is called at every event of Tune's.
        reason = self._call(self.room.waiting_reason) if waiting or not running else None
        for number in self._call(self.source.set_waiting, waiting.keys(), reason) or ():
            # An autoscaler starts machines for what waits.
            self.stop_trial(waiting[number])
            self.ended(waiting[number].trial_id, {"interrupted": True})
        # Tune calls no hook for some of its own errors, so failed trials are looked for here.
        for trial in [trial for trial in ours if trial.status == "ERROR"]:
            nodes = self._nodes.pop(trial.trial_id, None) or _node_of_lost(trial, self.room.resources.workers)
            self._call(self.source.segment_lost, self._numbers.pop(trial.trial_id), _loss_reason(trial), nodes)

    def finished(self) -> bool:
        """Whether Tune should end now; segments that wait for resources are not waited for."""
        return self.error is not None or (self._stopping and not self._busy)

    def _poll_source(self) -> None:
        self._stopping = self.source.poll()

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            self.error = self.error or error
            return None


class _Unpickled:
    """Tune pickles its parts for a restore that nobody asks for; the state of the sweep must not be copied along."""

    def __init__(self, adapter: TuneAdapter) -> None:
        self.adapter = adapter

    def __getstate__(self) -> dict[str, Any]:
        return {}


# The classes are made in functions: their bases need Ray, which this module must not import before the environment is set.


def _searcher(adapter: TuneAdapter) -> Any:
    """Build a searcher that suggests segments where Tune expects points of a search space."""
    from ray.tune.search import Searcher

    class SegmentSearcher(_Unpickled, Searcher):
        def __init__(self, adapter: TuneAdapter) -> None:
            Searcher.__init__(self, metric=None, mode=None)
            self.adapter = adapter

        def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            found = self.adapter.ask(trial_id)
            return {"done": Searcher.FINISHED, "wait": None}[found] if isinstance(found, str) else found

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if not error and result:  # errors are handled by `step`, where the reason is known
                self.adapter.ended(trial_id, result)

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    return SegmentSearcher(adapter)


def _scheduler(adapter: TuneAdapter) -> Any:
    """Build a scheduler that lets every segment run; Tune tells schedulers alone how a trial is stopped."""
    from ray.tune.schedulers import FIFOScheduler

    class SegmentScheduler(_Unpickled, FIFOScheduler):
        def __init__(self, adapter: TuneAdapter) -> None:
            FIFOScheduler.__init__(self)
            self.adapter = adapter

        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            self.adapter.stop_trial = tune_controller.stop_trial

    return SegmentScheduler(adapter)


def _callback(adapter: TuneAdapter) -> Any:
    from ray import tune

    class StepCallback(_Unpickled, tune.Callback):
        def on_step_end(self, iteration: int, trials: Any, **info: Any) -> None:
            self.adapter.step(trials)

    return StepCallback(adapter)


def _stopper(adapter: TuneAdapter) -> Any:
    from ray import tune

    class StopWhenIdle(_Unpickled, tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return self.adapter.finished()

    return StopWhenIdle(adapter)


def _nodes_of(actor: Any) -> tuple[str, ...]:
    """Return the ids of the nodes on which the placement group of an actor (id) has its bundles, () if Ray does not tell."""
    import ray
    from ray.util.placement_group import PlacementGroup

    told = _actor_facts(actor)
    if told is None:
        return ()
    table = ray.util.placement_group_table(PlacementGroup(ray.PlacementGroupID(told.placement_group_id)))
    return tuple(sorted({node for node in table.get("bundles_to_node_id", {}).values() if node}))


def _node_of_lost(tune_trial: Any, workers: int) -> tuple[str, ...]:
    """Return the id of the node on which the process of a segment of one rank died before it ran, () if Ray does not tell."""
    import ray

    found = re.findall(r"^\s*actor_id: ([0-9a-f]+)$", _error_text(tune_trial), re.MULTILINE)
    told = _actor_facts(ray.ActorID.from_hex(found[-1])) if found and workers == 1 else None
    return () if told is None else (told.address.node_id.hex(),)


def _actor_facts(actor: Any) -> Any:
    """Return what Ray has noted of an actor (id), None if nothing."""
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    messages: Any = gcs_pb2  # made by Ray's build, without types
    told = state.get_actor_info(actor)
    return messages.ActorTableData.FromString(told) if told else None


def _error_text(tune_trial: Any) -> str:
    """Return what Tune wrote of the last failure of a trial, "" if nothing."""
    try:
        text = Path(tune_trial.error_file).read_text()
    except (OSError, TypeError):
        return ""
    return text[text.rfind("Failure # ") :]  # of several failures the last one


def _loss_reason(tune_trial: Any) -> str:
    """Return in one line why a segment was lost: the message of our own error, or what Ray's means."""
    text = _error_text(tune_trial)
    if ours := re.findall(r"^(?:collagan_dist\.errors\.)?ClusterError: (.*)$", text, re.MULTILINE):
        return ours[-1]
    for sign, reason in _LOSS_REASONS.items():
        if sign in text:
            return reason
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its process is gone"
