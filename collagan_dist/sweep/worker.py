"""What a Ray worker process does with a segment: train it and report an outcome that the driver understands.

A failure of the trial itself is reported as data. A ClusterError is raised instead: Tune then counts the segment as lost, and the
driver starts it again elsewhere.
"""

from __future__ import annotations

import gc
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from collagan_dist.errors import ClusterError, CollaganError, DataError, Interrupted
from collagan_dist.runs.layout import RunPaths
from collagan_dist.sweep.rank_group import train_on_ranks
from collagan_dist.sweep.segment import SegmentSpec

WORKER_TAINTED = "its process met an error in another trial"
_worker_tainted = False  # whether an unexpected error may have left something behind in this process


def run_segment(config: dict[str, Any]) -> None:
    """Tune's trainable: run the segment of `config` and report its outcome."""
    from ray import tune

    # Tune reuses processes. After an error of CUDA or of memory the next trial would fail for no fault of its own.
    if _worker_tainted:
        raise ClusterError(WORKER_TAINTED)
    tune.report(train_segment(SegmentSpec(**config["spec"])))


def train_segment(spec: SegmentSpec) -> dict[str, Any]:
    """Train on all ranks; return {"steps"}, {"interrupted"} or {"failed": [exit code, reason]}. Raises ClusterError."""
    try:
        return {"steps": train_on_ranks(spec)}
    except Interrupted:
        return {"interrupted": True}
    except ClusterError:
        raise
    except CollaganError as error:
        return {"failed": [error.exit_code, str(error)]}
    except OSError as error:  # a disk or a mount
        return {"failed": [DataError.exit_code, f"{error.filename or spec.run}: {error.strerror or error}"]}
    except Exception as error:  # memory, CUDA, our own bugs
        return _unexpected(spec, error)
    finally:
        free_memory()


def _unexpected(spec: SegmentSpec, error: Exception) -> dict[str, Any]:
    """Log an error that is none of ours, and return it as the trial's failure; raise ClusterError if CUDA reports it."""
    global _worker_tainted
    _worker_tainted = True
    path = RunPaths(Path(spec.run)).train_log
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        traceback.print_exception(error, file=log)
    text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    # Most errors would happen again on any machine. What CUDA reports may be the fault of this device.
    if "CUDA error" in str(error):
        raise ClusterError(f"on {socket.gethostname()}: {text}") from None
    return {"failed": [CollaganError.exit_code, text]}


def free_memory() -> None:
    """Return cached GPU memory, which the next trial or another process on the GPU may need."""
    gc.collect()
    # What is left after the first segment is libraries: without them later collections take a tenth of the time.
    if not gc.get_freeze_count():
        gc.freeze()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
