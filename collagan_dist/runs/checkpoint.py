"""What must survive: a folder of safetensors and JSON, whole and hashed, or not there at all.

checkpoints/step-00001000/ is written under a name with a dot, flushed, described by manifest.json (sha256 of each file) and
renamed. No library format checks its bytes: a flipped bit loads as another number, so the hashes are ours. Nothing is
pickled, and no name that a manifest gives leads out of its folder, so a checkpoint from elsewhere can hurt nobody.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from collagan_dist import files
from collagan_dist.errors import CheckpointError
from collagan_dist.runs import tensor_file

FORMAT = 2  # what state.json says; older ones are read, newer ones refused
Tensors = Mapping[str, torch.Tensor]
Owned = Callable[[], AbstractContextManager[Any]]

_MANIFEST, _STATE = "manifest.json", "state.json"
_NAME = re.compile(r"[a-z0-9_]+\.safetensors")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LARGEST = {_MANIFEST: 1 << 20, _STATE: 1 << 26}  # bytes; ours are thousands of times smaller


class WriteFailed(CheckpointError):
    """A checkpoint could not be written; the former ones are intact. `needed` and `free` are bytes."""

    def __init__(self, text: str, needed: int, free: int) -> None:
        super().__init__(text, needed, free)
        self.needed, self.free = needed, free

    def __str__(self) -> str:
        return str(self.args[0])


class NewerFormat(CheckpointError):
    """A whole checkpoint of a newer program: nothing that one may step over."""


@dataclass(frozen=True)
class Loaded:
    path: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def place(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], keep: int,
    owned: Owned = nullcontext, tag: str = "",
) -> int:  # fmt: skip
    """Write folder/step-N with `NAME.safetensors` for each name of `tensors`; the `keep` newest stay. The bytes written.

    Tensors lie in CPU memory, contiguous. The renames happen inside `owned()`, which raises where another start owns the
    folder; `tag` keeps two starts' unfinished folders apart. Raises WriteFailed; the former checkpoint is untouched then.
    """
    final = place(folder, step)
    partial = folder / f".{final.name}{tag}"
    told = json.dumps({"format": FORMAT, **state}, indent=1, allow_nan=False).encode()
    needed = sum(map(tensor_file.size, tensors.values())) + len(told)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        if (free := _free(folder)) is not None and free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _fill(partial, step, tensors, told)
        with owned():
            aside = _commit(partial, final)
            aside += _set_aside(folder, step, keep)
    except OSError as error:
        raise _failure(error, final, needed) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _remove(aside)
    return needed


def _fill(partial: Path, step: int, tensors: Mapping[str, Tensors], state: bytes) -> None:
    """A folder of flushed files, the manifest last."""
    partial.mkdir()
    hashes = {}
    for name, content in tensors.items():
        file = f"{name}.safetensors"
        hashes[file] = _write(partial / file, tensor_file.pieces(content))
    hashes[_STATE] = _write(partial / _STATE, [state])
    _write(partial / _MANIFEST, [json.dumps({"step": step, "sha256": hashes}, indent=1).encode()])
    files.fsync_folder(partial)


def _write(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """The sha256 of what was written and flushed: of the bytes meant, not of what a disk may give back."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _commit(partial: Path, final: Path) -> list[Path]:
    """Give the folder its name; what had it before (a damaged one) is set aside."""
    aside = []
    if final.exists():
        aside.append(_aside(final))
    partial.replace(final)
    files.fsync_folder(final.parent)
    return aside


def _failure(error: OSError, final: Path, needed: int) -> WriteFailed:
    free = _free(final.parent)
    what = "no space left" if error.errno in _FULL else f"could not be written ({error.strerror or error})"
    room = "" if free is None else f", {free} are free"
    return WriteFailed(
        f"{final}: {what}; it needs {needed} bytes{room}; make room, the former checkpoint is intact", needed, free or 0
    )


def _free(folder: Path) -> int | None:
    """Bytes that this user may still write there; None where the file system does not say."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return (room.f_bavail if os.geteuid() else room.f_bfree) * room.f_frsize if room.f_blocks else None


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints of a folder, oldest first."""
    found = folder.glob("step-*") if folder.is_dir() else ()
    return sorted(int(path.name.removeprefix("step-")) for path in found if path.name[5:].isdigit())


def prune(folder: Path, step: int, keep: int) -> None:
    """Keep the `keep` newest checkpoints up to `step`. Later ones were found damaged: they count for nothing, and stay to be looked at."""
    _remove(_set_aside(folder, step, keep))


def clean(folder: Path) -> None:
    """Remove what killed starts left half-written or half-removed. Only for the owner of the run."""
    _remove([*folder.glob(".step-*"), *folder.glob(".old-*")])


def _set_aside(folder: Path, step: int, keep: int) -> list[Path]:
    aside: list[Path] = []
    with suppress(OSError):  # the checkpoint is there; one too many does no harm
        for old in [number for number in steps(folder) if number <= step][:-keep]:
            aside.append(_aside(place(folder, old)))
    return aside


def _aside(path: Path) -> Path:
    """Renamed first: a checkpoint that is being removed must not look like one."""
    doomed = path.with_name(f".old-{path.name.removeprefix('step-')}")
    shutil.rmtree(doomed, ignore_errors=True)
    return path.replace(doomed)


def _remove(doomed: Iterable[Path]) -> None:
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)


def load_latest(folder: Path, warn: Callable[[str], None], strict: bool = False) -> Loaded | None:
    """The newest checkpoint that is whole; None when there is none at all.

    A damaged one is named through `warn` and the one before it is taken. Raises CheckpointError when all are damaged, when
    the newest is and `strict` is given, and when it is a newer program's.
    """
    damaged = []
    for step in reversed(steps(folder)):
        try:
            return load(place(folder, step))
        except NewerFormat:
            raise
        except CheckpointError as error:
            if strict:
                raise CheckpointError(
                    f"{error}; remove it, or run without --strict to go on from the one before it"
                ) from None
            damaged.append(str(error))
            warn(str(error))
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is whole; remove the folder to start anew")
    return None


def load(path: Path) -> Loaded:
    """A checkpoint, every byte checked against its manifest. Raises CheckpointError."""
    try:
        manifest = _read_json(path, _MANIFEST)
        hashes = manifest["sha256"]
        if _STATE not in hashes:
            raise ValueError(f"{_MANIFEST} does not name {_STATE}")
        for name, expected in hashes.items():
            _check(path, name, expected)
        state = _read_json(path, _STATE)
        if not manifest["step"] == state["step"] == int(path.name.removeprefix("step-")):
            raise ValueError("its folder's name, manifest.json and state.json name different steps")
        _check_format(path, state["format"])
        weights = [name for name in hashes if name != _STATE]
        tensors = {name.removesuffix(".safetensors"): load_file(path / name) for name in weights}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from None
    return Loaded(path, tensors, state)


def _check(path: Path, name: str, expected: str) -> None:
    """Refuse a name that is none of ours, what is no plain file, and bytes that are not the manifest's."""
    if name != _STATE and not _NAME.fullmatch(name):
        raise CheckpointError(f"{path}: {_MANIFEST} names {name[:100]!r}, which is no file of a checkpoint")
    _plain(path / name)
    if files.sha256(path / name) != expected:
        raise CheckpointError(f"{path}: {name} is damaged (its sha256 differs from the manifest's)")


def _plain(file: Path) -> int:
    """The size of a plain file. Raises CheckpointError where a link, a pipe or a device stands in its place."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{file.parent}: {file.name} is no plain file")
    return found.st_size


def _read_json(path: Path, name: str) -> dict[str, Any]:
    if (size := _plain(path / name)) > _LARGEST[name]:
        raise CheckpointError(f"{path}: {name} is damaged ({size} bytes are too many)")
    content = json.loads((path / name).read_bytes())
    if not isinstance(content, dict):
        raise ValueError(f"{name} holds no object")
    return content


def _check_format(path: Path, number: Any) -> None:
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"{_STATE} names no format")
    if number > FORMAT:
        raise NewerFormat(
            f"{path}: is of format {number}, this program reads formats 1 to {FORMAT}; use the version of collagan_dist that wrote it"
        )
