"""A checkpoint: a folder of safetensors and JSON files with their hashes, complete or absent.

checkpoints/step-00001000/ is written under a name with a dot, flushed, described by manifest.json (sha256 of each file) and
renamed. Nothing is pickled, and no name in a manifest leads out of its folder, so a checkpoint from elsewhere can do no harm.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from collagan_dist import files, structured
from collagan_dist.errors import CheckpointError
from collagan_dist.places import Place
from collagan_dist.runs.checkpoint_state import FORMAT, AnyState, Step
from collagan_dist.runs.layout import MANIFEST_FILE, STATE_FILE, checkpoint_dir, checkpoint_steps, step_of
from collagan_dist.runs.lease import Lease

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]
R = TypeVar("R", bound=structured.Record)

_TENSOR_FILE = re.compile(r"[a-z0-9_]+\.safetensors")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Real ones are thousands of times smaller; the limit keeps a forged file from filling the memory.
MAX_MANIFEST_BYTES = 1 << 20
_MAX_BYTES = {MANIFEST_FILE: MAX_MANIFEST_BYTES, STATE_FILE: 1 << 26}
MAX_TENSOR_BYTES = 1 << 37  # a sparse file of any size costs its maker nothing, and its hash would cost us days
_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PIECE_BYTES = 1 << 24  # small enough to notice early that a disk fails
_ALIGN_BYTES = 8  # of the header, so that a reader may map the tensors


class WriteFailed(CheckpointError):
    """A checkpoint could not be written; the former ones are intact. `needed` and `free` are bytes."""

    def __init__(self, text: str, needed: int, free: int) -> None:
        super().__init__(text)
        self.needed, self.free = needed, free


class NewerFormat(CheckpointError):
    """An undamaged checkpoint of a newer program. It is never skipped in favour of an older one."""


class Unreadable(CheckpointError):
    """A file that cannot be read now (permission, an I/O error): nobody knows whether it is damaged, so it is not skipped."""


class CheckpointManifest(structured.Record):
    """The content of manifest.json: sha256 by file."""

    step: Step
    sha256: dict[str, str]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """The content of a checkpoint: tensors by file and name, and state.json."""

    path: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any], keep: int,
    lease: Lease | None = None,
) -> int:  # fmt: skip
    """Write folder/step-N with `NAME.safetensors` for each name of `tensors`; return its bytes. The `keep` newest stay.

    Tensors are contiguous and in CPU memory. Raises WriteFailed, and ClusterError if the `lease` was lost; the former
    checkpoint is untouched then.
    """
    final = checkpoint_dir(folder, step)
    # Two starts may write the same step for a moment: the token keeps their unfinished folders apart.
    partial = folder / f".{final.name}{f'-{lease.owner.token[:8]}' if lease else ''}"
    content = json.dumps({"format": FORMAT, **state}, indent=1, allow_nan=False).encode()
    needed = sum(map(_file_size, tensors.values())) + len(content)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        # Checked before, since a disk filled to the last byte stops everybody else who writes there.
        if (free := files.free_bytes(folder)) is not None and free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _write_files(partial, step, tensors, content)
        with lease.held() if lease else nullcontext():
            doomed = commit(partial, final)
            doomed += _set_aside_old(folder, step, keep)
    except OSError as error:  # in a thread of rank 0, which reports it when the ranks meet next
        raise _write_failed(error, final, needed) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    # Outside of the lease's lock: removing gigabytes takes long on network storage.
    remove(doomed)
    return needed


def _write_files(partial: Path, step: int, tensors: Mapping[str, Tensors], state: bytes) -> None:
    partial.mkdir()
    hashes = {}
    for name, content in tensors.items():
        file = f"{name}.safetensors"
        hashes[file] = _write_hashed(partial / file, tensor_pieces(content))
    hashes[STATE_FILE] = _write_hashed(partial / STATE_FILE, [state])
    # Last, so that a folder with a manifest has everything that it names.
    _write_hashed(partial / MANIFEST_FILE, [json.dumps({"step": step, "sha256": hashes}, indent=1).encode()])
    # The names in the folder must be on disk before the folder gets its own.
    files.fsync(partial)


def _write_hashed(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write and flush a file; return the sha256 of the bytes that were meant, not of what a disk gives back."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in pieces:
            # hashlib and write release the interpreter's lock, so training is not held up.
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


# The library's own writer builds the file in memory under the interpreter's lock, which stops training meanwhile (0.4 s for
# 400 MB, measured), or hides what failed. Its reader reads what is written here.


def _file_size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the bytes of the file."""
    return len(_header(tensors)) + sum(tensor.nbytes for tensor in tensors.values())


def tensor_pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """Yield the file from start to end. Tensors are contiguous and in CPU memory."""
    yield _header(tensors)
    for name in _order(tensors):
        # As bytes, since numpy has no bfloat16.
        content = tensors[name].reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]


def _order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    # Larger elements first, so that each tensor is aligned to its elements.
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    # Libraries that read files of several frameworks, like transformers, refuse one that does not name its own.
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name in _order(tensors):
        tensor = tensors[name]
        end = start + tensor.nbytes
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN_BYTES)
    return len(text).to_bytes(8, "little") + text


def commit(partial: Path, final: Path) -> list[Path]:
    """Rename the finished folder; return what had its name before, under another one."""
    # A damaged checkpoint of this step, from which the run went back to an earlier one.
    doomed = [_set_aside(final)] if final.exists() else []
    partial.replace(final)
    files.fsync(final.parent)
    return doomed


def _write_failed(error: OSError, final: Path, needed: int) -> WriteFailed:
    free = files.free_bytes(final.parent)
    reason = "no space left" if error.errno in _NO_SPACE else f"could not be written ({error.strerror or error})"
    room = "" if free is None else f", {free} are free"
    text = f"{final}: {reason}; it needs {needed} bytes{room}; make room, the former checkpoint is intact"
    return WriteFailed(text, needed, free or 0)


def prune(folder: Path, step: int, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints up to `step`.

    Later ones were found damaged: they do not count, and stay for inspection.
    """
    remove(_set_aside_old(folder, step, keep))


def remove_others(folder: Path, kept: Collection[int]) -> None:
    """Remove the checkpoints of all steps that are not `kept`, later ones too."""
    remove([_set_aside(checkpoint_dir(folder, step)) for step in checkpoint_steps(folder) if step not in kept])


def remove_unfinished(folder: Path) -> None:
    """Remove what killed starts left half written or half removed. Only for the owner of the run."""
    remove([*folder.glob(".step-*"), *folder.glob(".old-*")])


def _set_aside_old(folder: Path, step: int, keep: int) -> list[Path]:
    doomed: list[Path] = []
    with suppress(OSError):  # the new checkpoint is written; one old one too many does no harm
        for old in [number for number in checkpoint_steps(folder) if number <= step][:-keep]:
            doomed.append(_set_aside(checkpoint_dir(folder, old)))
    return doomed


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint that is to be removed: half removed, it must not look like one."""
    doomed = path.with_name(f".old-{path.name.removeprefix('step-')}")
    shutil.rmtree(doomed, ignore_errors=True)
    return path.replace(doomed)


def remove(doomed: Iterable[Path]) -> None:
    """Remove what was renamed for that."""
    for path in doomed:
        shutil.rmtree(path, ignore_errors=True)


def load_latest(folder: Path, strict: bool = False) -> LoadedCheckpoint | None:
    """Return the newest undamaged checkpoint; None if there is none at all. Damaged ones are named on stderr.

    Raises CheckpointError when all are damaged, when the newest is and `strict` is given, when it is a newer program's, and
    Unreadable when it cannot be read.
    """
    damaged = False
    try:
        steps = checkpoint_steps(folder)
    except OSError as error:
        raise unreadable(folder, error) from None
    for step in reversed(steps):
        try:
            return load(checkpoint_dir(folder, step))
        # An older checkpoint would silently lose what came after it, and the next save would remove it.
        except (NewerFormat, Unreadable):
            raise
        except CheckpointError as error:
            if strict:
                hint = "remove it, or run without --strict to go on from the one before it"
                raise CheckpointError(f"{error}; {hint}") from None
            damaged = True
            logger.warning("warning: %s; taking the checkpoint before it", error)
    if damaged:
        raise CheckpointError(f"{folder}: no checkpoint is undamaged; remove the folder to start anew")
    return None


def unreadable(path: Path, error: OSError) -> Unreadable:
    where = error.filename or path
    return Unreadable(
        f"{where}: cannot be read ({error.strerror or error}); give this user access to it, or mend the storage"
    )


def load(path: Path) -> LoadedCheckpoint:
    """Read a checkpoint and check every byte against its manifest. Raises CheckpointError."""
    with _saying_damage(path):
        return _load(path)


def check(path: Path) -> None:
    """Check every byte against the manifest, and load nothing. Raises CheckpointError."""
    with _saying_damage(path):
        _check(path)


@contextmanager
def _saying_damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from None
    except OSError as error:
        raise unreadable(path, error) from None
    # All that forged or damaged files make safetensors raise.
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: is damaged ({error})") from None


def _check(path: Path) -> CheckpointManifest:
    manifest = read_record(path, MANIFEST_FILE, CheckpointManifest)
    for name, expected in hashes_of(path, manifest).items():
        check_file(path, name, expected)
    return manifest


def _load(path: Path) -> LoadedCheckpoint:
    manifest = _check(path)
    state = read_record(path, STATE_FILE, AnyState)
    if not manifest.step == state.step == step_of(path.name):
        raise ValueError("its folder's name, manifest.json and state.json name different steps")
    if state.format > FORMAT:
        reads = f"this program reads formats 1 to {FORMAT}; use the version of collagan_dist that wrote it"
        raise NewerFormat(f"{path}: is of format {state.format}, {reads}")
    names = [name for name in manifest.sha256 if name != STATE_FILE]
    tensors = {name.removesuffix(".safetensors"): load_file(path / name) for name in names}
    return LoadedCheckpoint(path, tensors, state.model_dump())


def hashes_of(where: Path | Place, manifest: CheckpointManifest) -> dict[str, str]:
    """Return the sha256 of each file of a checkpoint. Raises ValueError, and CheckpointError for a name that leads elsewhere."""
    if STATE_FILE not in manifest.sha256:
        raise ValueError(f"{MANIFEST_FILE} does not name {STATE_FILE}")
    for name in manifest.sha256:
        if name != STATE_FILE and not _TENSOR_FILE.fullmatch(name):
            raise CheckpointError(f"{where}: {MANIFEST_FILE} names {name[:100]!r}, which is no file of a checkpoint")
    return manifest.sha256


def check_file(folder: Path, name: str, sha256: str) -> None:
    """Raise CheckpointError unless `name` is a plain file with these bytes."""
    if (size := _plain_size(folder / name)) > MAX_TENSOR_BYTES:
        raise CheckpointError(f"{folder}: {name} is damaged ({size} bytes are too many)")
    # safetensors checks no bytes itself: a flipped bit loads as another number.
    if files.sha256(folder / name) != sha256:
        raise CheckpointError(f"{folder}: {name} is damaged or edited (its sha256 differs from the manifest's)")


def _plain_size(file: Path) -> int:
    """Return the size of a file. Raises CheckpointError for a link, a pipe or a device, which may lead anywhere."""
    found = file.lstat()  # not stat, which follows links
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{file.parent}: {file.name} is no plain file")
    return found.st_size


def read_record(folder: Path, name: str, model: type[R]) -> R:
    """Return the content of manifest.json or state.json. Raises CheckpointError, OSError or ValueError."""
    if (size := _plain_size(folder / name)) > _MAX_BYTES[name]:
        raise CheckpointError(f"{folder}: {name} is damaged ({size} bytes are too many)")
    return structured.read_record(folder / name, model, _MAX_BYTES[name])
