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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from collagan_dist.sweep.resources import TrialResources, node_resources, placement_is_pending
from collagan_dist.sweep.segment import SegmentSpec
from collagan_dist.sweep.worker import run_segment

_POLL_SECONDS = 2.0  # between looks at the cluster's resources
_IDLE_SECONDS = 15.0  # without a running segment before the reason is looked for
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
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

    def segment_ended(self, number: int, outcome: dict[str, Any]) -> None: ...

    def segment_lost(self, number: int, reason: str) -> None:
        """The cluster ended a segment, or it could not continue where it was."""
        ...

    def set_idle_reason(self, reason: str | None) -> None:
        """Why nothing runs although there is work, or None."""
        ...

    def poll(self) -> bool:
        """Return whether to stop: start no more segments, end with those that run. Called several times a second."""
        ...


def run_tune(source: SegmentSource, ray: Any, resources: TrialResources, out: Path) -> None:
    """Run the segments of a source until it is DONE, or until `poll` asks to stop and the running ones have ended."""
    os.environ.update(_ENVIRONMENT)
    from ray import tune

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    state = out / ".tune"  # on storage that all nodes share, as Tune wants it
    shutil.rmtree(state, ignore_errors=True)
    adapter = TuneAdapter(
        source, lambda: resources.capacity(list(node_resources(ray).values())), lambda: placement_is_pending(ray)
    )
    try:
        tune.Tuner(
            tune.with_resources(run_segment, resources.placement(tune)),
            # reuse_actors: a new process would spend seconds on importing torch for each segment.
            tune_config=tune.TuneConfig(search_alg=_searcher(adapter), num_samples=-1, reuse_actors=True),
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
    """Connects Tune's searcher, callback and stopper with a source, and records which Tune trial runs whose segment.

    `error` is the first exception of the source; Tune itself would swallow it.
    """

    def __init__(self, source: SegmentSource, capacity: Callable[[], int], pending: Callable[[], bool]) -> None:
        self.source, self.capacity, self.pending = source, capacity, pending
        self.error: Exception | None = None
        self._numbers: dict[str, int] = {}  # sweep's trial number by Tune's trial id
        self._slots, self._crowded, self._polled_at = 0, False, -_POLL_SECONDS
        self._stopping = self._busy = False
        self._idle_since = time.monotonic()

    def ask(self, trial_id: str) -> SegmentSpec | str:
        """Return the next segment, WAIT or DONE."""
        self._call(self._poll_source)
        if self._stopping or self.error is not None:
            return "done"
        self._poll_cluster()
        # No more than the cluster has room for: a segment that is chosen later is chosen with more results.
        if len(self._numbers) >= self._slots:
            return "wait"
        found = self._call(self.source.next_segment)
        if found is None or isinstance(found, str):
            return found or "done"
        self._numbers[trial_id], spec = found
        return spec

    def ended(self, trial_id: str, outcome: dict[str, Any]) -> None:
        self._call(self.source.segment_ended, self._numbers.pop(trial_id), outcome)

    def step(self, tune_trials: Sequence[Any]) -> None:
        """Handle one event of Tune's loop."""
        self._call(self._poll_source)
        self._busy = any(trial.status == "RUNNING" for trial in tune_trials)
        if self._busy or not self._numbers:
            self._idle_since = time.monotonic()
        self._call(self.source.set_idle_reason, self._idle_reason())
        # Tune calls no hook for some of its own errors, so failed trials are looked for here.
        for trial in [trial for trial in tune_trials if trial.status == "ERROR" and trial.trial_id in self._numbers]:
            self._call(self.source.segment_lost, self._numbers.pop(trial.trial_id), _loss_reason(trial))

    def finished(self) -> bool:
        """Whether Tune should end now; segments that wait for resources are not waited for."""
        return self.error is not None or (self._stopping and not self._busy)

    def _poll_cluster(self) -> None:
        now = time.monotonic()
        if now - self._polled_at >= _POLL_SECONDS:
            self._slots, self._polled_at = self.capacity(), now
            self._crowded = now - self._idle_since > _IDLE_SECONDS and self.pending()

    def _idle_reason(self) -> str | None:
        if self._busy:
            return None
        self._poll_cluster()
        if self._slots == 0:
            return "no node of the cluster that lives has what a trial takes"
        return "others use what the cluster has" if self._crowded else None

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
            if isinstance(found, str):
                return Searcher.FINISHED if found == "done" else None
            return {"spec": asdict(found)}

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            if not error and result:  # errors are handled by `step`, where the reason is known
                self.adapter.ended(trial_id, result)

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

        def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None: ...

    return SegmentSearcher(adapter)


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


def _loss_reason(tune_trial: Any) -> str:
    """Return in one line why a segment was lost: the message of our own error, or what Ray's means."""
    try:
        text = Path(tune_trial.error_file).read_text()
    except (OSError, TypeError):
        return "its process is gone"
    text = text[text.rfind("Failure # ") :]  # of several failures the last one
    if ours := re.findall(r"^(?:collagan_dist\.errors\.)?ClusterError: (.*)$", text, re.MULTILINE):
        return ours[-1]
    for sign, reason in _LOSS_REASONS.items():
        if sign in text:
            return reason
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "its process is gone"
