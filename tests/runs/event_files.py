"""TensorBoard's event files as its two readers see them: TFRecord framing, and how each drops what a continued run wrote twice."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c


def events(path: Path) -> Iterator[Event]:
    """Yield the complete events of a file; the last one may be cut short by a kill."""
    content = path.read_bytes()
    at = 0
    while at + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        assert struct.unpack_from("<I", content, at + 8)[0] == masked_crc32c(content[at : at + 8]), path
        data = content[at + 12 : at + 12 + length]
        if at + 16 + length > len(content):
            return
        assert struct.unpack_from("<I", content, at + 12 + length)[0] == masked_crc32c(data), path
        yield Event.FromString(data)
        at += 16 + length


def files(run: Path) -> list[Path]:
    """Return the event files of a run in the order in which TensorBoard reads them."""
    return sorted(path for path in (run / "tensorboard").iterdir() if "tfevents" in path.name)


Curves = dict[str, dict[int, Any]]  # tag -> step -> value


def curves(run: Path, kind: str = "simple_value", fast: bool = False) -> Curves:
    """Return what is shown: by the Python reader, which knows START events, or by the fast one, which knows only a curve's steps.

    No curve may have a step twice.
    """
    shown: dict[str, list[tuple[int, Any]]] = defaultdict(list)
    for path in files(run):
        for event in events(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START and not fast:
                for tag, points in shown.items():
                    shown[tag] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                if value.WhichOneof("value") == kind:
                    before = shown[value.tag]
                    if fast:
                        before[:] = [point for point in before if point[0] < event.step]
                    before.append((event.step, getattr(value, kind)))
    assert all(len(dict(points)) == len(points) for points in shown.values()), shown
    return {tag: dict(points) for tag, points in shown.items() if points}
