"""RUN/tensorboard: the numbers and picture grids of a run as TensorBoard's event files, one a start.

Protocol buffers and check sums are tensorboardX's, the files are written here. Its SummaryWriter writes from a thread that
ends at the first error of the disk, after which training would wait for ever at its full queue.
"""

from __future__ import annotations

import json
import math
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from collagan_dist import files
from collagan_dist.errors import ConfigError
from collagan_dist.runs.append_file import AppendFile
from collagan_dist.runs.layout import RunPaths

# What a line's keys begin with in TensorBoard, by the line's kind. Events have no curves.
_TAG_PREFIX = {"train": "", "eval": "eval/"}
_FILE_PREFIX = "events.out.tfevents."
_HPARAMS_SUFFIX = ".hparams"
_PNG_SIZE = struct.Struct(">16xII")  # width and height, behind the signature and the head of the first chunk


class EventFile:
    """The event file of one start. Opened at `step`, it hides what earlier starts wrote beyond that step."""

    @staticmethod
    def check_installed() -> None:
        """Raise ConfigError if tensorboardX is missing."""
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"log.sinks: tensorboard needs tensorboardX, which cannot be imported ({error}); "
                "pip install 'collagan_dist[tensorboard]', or leave it out of log.sinks"
            ) from None

    def __init__(self, run: Path, step: int, is_current: Callable[[], bool] = lambda: True) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._file = AppendFile(_next_path(RunPaths(run).tensorboard), is_current, "events")
        self._file.append(_event(file_version="brain.Event:2"))
        # TensorBoard's purge_step: it drops earlier events from the step of a START on. Its fast reader does not know START;
        # it drops, curve by curve, what is at or beyond a step that is written again.
        self._file.append(_event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """Write the numbers of a line of metrics.jsonl as one event."""
        if values := tagged_numbers(kind, record):
            self._file.append(_scalars(step, values))

    def add_grid(self, step: int, png: bytes) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        # On a full disk pictures would fill the memory, which a few numbers do not.
        if not self._file.waiting:
            width, height = _PNG_SIZE.unpack_from(png)
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
            self._file.append(_event(step=step, summary=Summary(value=[Summary.Value(tag="grid", image=image)])))

    def close(self) -> None:
        self._file.close()


def write_hparams(run: Path, params: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write what TensorBoard's HParams page shows of a finished trial: its parameters, and its metrics as `hparam/<metric>`.

    Replaces what was there. A value that is no number, string or boolean is shown as JSON. Raises ConfigError without
    tensorboardX, DiskFull or OSError where it cannot be written.
    """
    EventFile.check_installed()
    from tensorboardX.summary import hparams

    results = dict(_numbers(metrics, "hparam/"))
    shown = {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value, default=str)
        for key, value in params.items()
    }
    events = [_event(summary=summary) for summary in hparams(shown, results)]
    folder = RunPaths(run).tensorboard
    folder.mkdir(exist_ok=True)
    former = list(folder.glob(f"{_FILE_PREFIX}*{_HPARAMS_SUFFIX}"))
    content = b"".join([_event(file_version="brain.Event:2"), *events, _scalars(0, results)])
    files.write_bytes(_next_path(folder, _HPARAMS_SUFFIX), content)
    for path in former:  # TensorBoard shows the first parameters that it finds
        path.unlink(missing_ok=True)


def tagged_numbers(kind: str, record: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line of metrics.jsonl by their tags, as all sinks show them; {} for an event."""
    return dict(_numbers(record, _TAG_PREFIX[kind])) if kind in _TAG_PREFIX else {}


def _numbers(tree: dict[str, Any], path: str) -> Iterator[tuple[str, float]]:
    """Yield (tag, number) of every finite leaf. A tag is the path of keys: eval/dice/mean."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{path}{key}", value


def _next_path(folder: Path, suffix: str = "") -> Path:
    """Return the path of a new event file, which TensorBoard will read last."""
    # It reads them by name. Seconds alone do not do: two starts may fall into one, and hosts' clocks differ.
    found = (re.match(r"\d+", path.name.removeprefix(_FILE_PREFIX)) for path in folder.glob(f"{_FILE_PREFIX}*"))
    last = max((int(number[0]) for number in found if number), default=0)
    return folder / f"{_FILE_PREFIX}{max(int(time.time()), last + 1):010d}.{socket.gethostname()}{suffix}"


def _scalars(step: int, values: dict[str, float]) -> bytes:
    from tensorboardX.proto.summary_pb2 import Summary

    return _event(step=step, summary=Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()]))


def _event(**content: Any) -> bytes:
    """Return an event as a record of a TFRecord file: length, its check sum, content, its check sum."""
    # By hand, since tensorboardX's RecordWriter flushes by fsync, which waits for a checkpoint's gigabytes, too.
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])
