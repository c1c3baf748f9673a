"""Our safetensors files, read back by the library."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load

from collagan_dist.runs import tensor_file

KINDS = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
)  # fmt: skip


def test_the_library_reads_what_was_written() -> None:
    """Every kind of tensor; the size is known before."""
    tensors = {f"{kind}": torch.arange(3).to(kind) for kind in KINDS}
    tensors |= {
        "truth": torch.tensor([True, False]), "scalar": torch.tensor(7), "none": torch.zeros(0, 3), "ü": torch.ones(2, 1, 3),
    }  # fmt: skip
    content = b"".join(bytes(piece) for piece in tensor_file.pieces(tensors))
    assert len(content) == tensor_file.size(tensors)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    sizes = {name: tensor.element_size() for name, tensor in tensors.items()}
    assert all(entry["data_offsets"][0] % sizes[name] == 0 for name, entry in header.items())  # readers may map it
    again = load(content)
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor), name
