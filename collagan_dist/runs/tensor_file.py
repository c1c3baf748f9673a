"""safetensors files as a stream of bytes: written and hashed without a second copy of the tensors in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch

# The library's own writer builds the file in memory under the interpreter's lock, which stops training meanwhile (0.4 s for
# 400 MB, measured), or hides what failed. Its reader reads what is written here.

_NAMES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_PIECE_BYTES = 1 << 24  # small enough to notice early that a disk fails
_ALIGN_BYTES = 8  # of the header, so that a reader may map the tensors


def size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Return the bytes of the file."""
    return len(_header(tensors)) + sum(tensor.nbytes for tensor in tensors.values())


def pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
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
    entries, start = {}, 0
    for name in _order(tensors):
        tensor = tensors[name]
        end = start + tensor.nbytes
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGN_BYTES)
    return len(text).to_bytes(8, "little") + text
