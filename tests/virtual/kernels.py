"""The rule by which operations and their bytes are counted."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach"}


class Kernels:
    """Operations that have a kernel, and the bytes that they read and write, by name."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def count(self, func: Any, inputs: Any, out: Any) -> None:
        """Count an operation, unless it returns a view."""
        name = func._schema.name.removeprefix("aten::")
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if is_view or name in _NO_KERNEL:
            return
        read, written = tensors_of(inputs), tensors_of(out)
        if not written:  # in place, on lists: the first one is read and written
            written = read[: len(read) // max(1, sum("Tensor" in str(a.type) for a in func._schema.arguments))]
        if name == "copy_":
            read = read[1:]
        self.operations[name] += 1
        self.bytes[name] += sum(t.nbytes for t in (*read, *written))


class Counting(TorchDispatchMode):
    """Within it all operations are counted that torch dispatches, on any device."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kernels.count(func, (args, kwargs), out)
        return out


def tensors_of(values: Any) -> list[torch.Tensor]:
    """Return the tensors in nested arguments or results."""
    return [x for x in tree_flatten(values)[0] if isinstance(x, torch.Tensor)]
