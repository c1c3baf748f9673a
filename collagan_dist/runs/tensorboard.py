"""RUN/tensorboard: the numbers and pictures of a run as TensorBoard's event files.

Events are tensorboardX's; the file is ours. Its SummaryWriter writes from a thread that ends at the first error of the disk,
after which training waits for ever at its full queue; and it names files by the second, so that a start may empty its predecessor's.
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

FOLDER = "tensorboard"
# Before the keys of a line, by its kind; other kinds have no curves.
_PREFIX = {"train": "", "eval": "eval/"}
_NAME = "events.out.tfevents."
_HPARAMS = ".hparams"
_SIZE_OF_PNG = struct.Struct(">16xII")


def check() -> None:
    """Raises ConfigError where tensorboardX is missing."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"log.sinks: tensorboard needs tensorboardX, which cannot be imported ({error}); "
            "pip install 'collagan_dist[tensorboard]', or leave it out of log.sinks"
        ) from None


class EventFile:
    """The event file of one start.

    Opened at `step`, it hides what earlier starts wrote beyond that step, which the coming steps write again: TensorBoard drops earlier
    events from the step of a START on, or with its fast reader each curve's from the step that is written again.
    """

    def __init__(self, run: Path, step: int, mine: Callable[[], bool] = lambda: True) -> None:
        from tensorboardX.proto.event_pb2 import SessionLog

        self._file = AppendFile(_next_path(run / FOLDER), mine, "events")
        self._file.add(_event(file_version="brain.Event:2"))
        self._file.add(_event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, kind: str, step: int, record: dict[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl as one event."""
        if kind in _PREFIX and (values := dict(_numbers(record, _PREFIX[kind]))):
            self._file.add(_scalars(step, values))

    def picture(self, step: int, png: bytes) -> None:
        """A picture grid. There is none while events wait: pictures would fill the memory."""
        from tensorboardX.proto.summary_pb2 import Summary

        if not self._file.waits:
            width, height = _SIZE_OF_PNG.unpack_from(png)
            image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
            self._file.add(_event(step=step, summary=Summary(value=[Summary.Value(tag="grid", image=image)])))

    def close(self) -> None:
        self._file.close()


def write_hparams(run: Path, params: dict[str, Any], metrics: dict[str, Any]) -> None:
    """What TensorBoard's HParams page shows of a finished trial: its parameters and what came of them, as `hparam/<metric>`.

    Written again, it replaces what was there. A value that is no number, text or truth value is shown as JSON. Raises ConfigError
    without tensorboardX, DiskFull or OSError where it cannot be written.
    """
    check()
    from tensorboardX.summary import hparams

    results = dict(_numbers(metrics, "hparam/"))
    shown = {
        key: value if isinstance(value, bool | int | float | str) else _as_json(value) for key, value in params.items()
    }
    events = [_event(summary=summary) for summary in hparams(shown, results)]
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    former = list(folder.glob(f"{_NAME}*{_HPARAMS}"))
    content = b"".join([_event(file_version="brain.Event:2"), *events, _scalars(0, results)])
    files.write_bytes(_next_path(folder, _HPARAMS), content)
    for path in former:  # TensorBoard keeps the first parameters that it finds
        path.unlink(missing_ok=True)


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def _numbers(tree: dict[str, Any], path: str) -> Iterator[tuple[str, float]]:
    """(tag, number) of every leaf that is a finite one; a tag is the way to it: eval/dice/mean."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{path}{key}", value


def _next_path(folder: Path, suffix: str = "") -> Path:
    """TensorBoard reads the files of a folder by their names, so the newest has the largest number: the time, or one more than the last."""
    found = (re.match(r"\d+", path.name.removeprefix(_NAME)) for path in folder.glob(f"{_NAME}*"))
    last = max((int(number[0]) for number in found if number), default=0)
    return folder / f"{_NAME}{max(int(time.time()), last + 1):010d}.{socket.gethostname()}{suffix}"


def _scalars(step: int, values: dict[str, float]) -> bytes:
    from tensorboardX.proto.summary_pb2 import Summary

    return _event(step=step, summary=Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in values.items()]))


def _event(**content: Any) -> bytes:
    """An event as a record of a TFRecord file: length, its check sum, bytes, theirs."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    data = Event(wall_time=time.time(), **content).SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])
