"""A step under `runtime.compile: step`, counted on the CPU: the operations outside its graphs, and the bytes of all.

torch does not compile beneath the virtual device. So the step runs on the CPU, and each graph goes through inductor as far as its
schedule; it is then executed operation by operation.

The rule of fusion: operations between the same convolutions that pass values to one another are one kernel, which reads each of its
inputs once and writes once what others read. That is how an eager batch normalization is counted, too, which in truth reads its
input twice. Convolutions and products of matrices are kernels of their own. `scheduled` is what inductor itself fuses for a CPU.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch._functorch.aot_autograd import make_boxed_func
from torch._inductor import compile_fx as inductor
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import BaseSchedulerNode, ExternKernelSchedulerNode
from torch._inductor.virtualized import V
from torch.utils._python_dispatch import _disable_current_modes

from tests.virtual.full_width import SMALL, bytes_at, step_at_full_width
from tests.virtual.kernels import Counting, Kernels


@dataclass
class Graph:
    """A forward or a backward graph: its kernels, and their bytes by the rule above and by inductor's schedule."""

    kernels: int
    fused: int
    convolutions: int
    scheduled: int


@dataclass
class Counts:
    """What a step did: operations that are in no graph, and the graphs that ran."""

    outside: Kernels = field(default_factory=Kernels)
    graphs: list[Graph] = field(default_factory=list)


def count_compiled_step(batch: int) -> tuple[Counts, dict[str, float]]:
    """Count the step of step_at_full_width under `compile: step`; return the counts of a small batch, and the bytes of `batch`."""
    found = {}
    for size in SMALL:
        counts = Counts()
        with _compiling_as_far_as_the_schedule(counts):
            step = step_at_full_width(torch.device("cpu"), size, "runtime.compile=step")
            step()  # compiles
            counts.graphs.clear()
            with Counting(counts.outside):
                step()
        found[size] = counts
    moved = {
        size: {
            "outside": counts.outside.bytes.total(),
            **{
                name: sum(getattr(graph, name) for graph in counts.graphs)
                for name in ("fused", "convolutions", "scheduled")
            },
        }
        for size, counts in found.items()
    }
    return found[SMALL[0]], bytes_at(batch, moved)


@contextmanager
def _compiling_as_far_as_the_schedule(counts: Counts) -> Iterator[None]:
    compile_ = torch.compile

    def inner(module: torch.fx.GraphModule, inputs: Sequence[Any], is_backward: bool = False, **_: Any) -> Any:
        graph = _scheduled(module, inputs, is_backward)

        def run(*args: Any) -> Any:
            counts.graphs.append(graph)
            with _disable_current_modes():
                return module(*args)

        return make_boxed_func(run)

    def backend(module: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        return inductor.compile_fx(module, inputs, inner_compile=inner)

    def compiled(function: Any, **options: Any) -> Any:
        made = compile_(function, backend=backend, **options)

        def call(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():  # torch compiles beneath no mode
                return made(*args, **kwargs)

        return call

    with patch.object(torch, "compile", compiled):
        yield


def _scheduled(module: torch.fx.GraphModule, inputs: Sequence[Any], is_backward: bool) -> Graph:
    """Do with a graph what inductor does before it writes code."""
    inductor.view_to_reshape(module)
    with torch.no_grad():
        fakes = inductor.fake_tensor_prop(module, inputs)
    inductor._recursive_record_original_output_strides(module)
    shapes = inductor.shape_env_from_inputs(inputs)
    with V.set_fake_mode(fakes):
        inductor._recursive_post_grad_passes(module, is_inference=False)
        graph = GraphLowering(module, example_inputs=inputs, shape_env=shapes, is_backward=is_backward)
        with V.set_graph_handler(graph), V.set_extern_kernel_nodes([]), DebugContext():
            graph.run(*inputs)
            graph._update_scheduler()
            kernels = _fused(graph)
            size = dict.fromkeys((False, True), 0)
            for kernel, moved in zip(kernels, _bytes(graph, kernels), strict=True):
                size[_is_alone(kernel[0])] += moved
            return Graph(len(kernels), size[False], size[True], graph.count_bytes()[0])


Kernel = list[BaseSchedulerNode]


def _fused(graph: GraphLowering) -> list[Kernel]:
    """Return the graph's operations by kernel."""
    nodes = [node for fused in graph.scheduler.nodes for node in fused.get_nodes()]
    producers = {write.name: node for node in nodes for write in node.read_writes.writes}
    depth: dict[BaseSchedulerNode, int] = {}  # convolutions on the longest way to a node
    kernel_of: dict[BaseSchedulerNode, Kernel] = {}
    for node in nodes:
        before = [p for read in node.read_writes.reads if (p := producers.get(read.name)) in depth]
        depth[node] = max((depth[p] + _is_alone(p) for p in before), default=0)
        kernel_of[node] = kernel = [node]
        for p in before:
            other = kernel_of[p]
            if depth[p] == depth[node] and not _is_alone(p) and not _is_alone(node) and other is not kernel:
                kernel += other
                kernel_of |= dict.fromkeys(other, kernel)
    return list({id(kernel): kernel for kernel in kernel_of.values()}.values())


def _is_alone(node: BaseSchedulerNode) -> bool:
    return isinstance(node, ExternKernelSchedulerNode)


def _bytes(graph: GraphLowering, kernels: list[Kernel]) -> Iterator[int]:
    """Yield the bytes that each kernel reads and writes."""
    readers: dict[str, set[int]] = defaultdict(set)
    for number, kernel in enumerate(kernels):
        for node in kernel:
            for read in node.read_writes.reads:
                readers[read.name].add(number)
    outputs = set(graph.get_output_names())
    for number, kernel in enumerate(kernels):
        made = {write.name for node in kernel for write in node.read_writes.writes}
        size: dict[str, int] = defaultdict(int)
        for node in kernel:
            for read in node.read_writes.reads:
                if read.name not in made:
                    size[read.name] = max(size[read.name], _size(graph, read))
            for write in node.read_writes.writes:
                if write.name in outputs or readers[write.name] - {number} or _is_alone(node):
                    size[write.name] = max(size[write.name], _size(graph, write))
        yield sum(size.values())


def _size(graph: GraphLowering, access: Any) -> int:
    """Return the bytes of an access; no more than its buffer has, for what is read where it is masked anyway."""
    buffer, size = graph.try_get_buffer(access.name), graph.get_dep_size_hint(access)
    shape = None if buffer is None else buffer.maybe_get_size()
    return size if shape is None else min(size, math.prod(map(int, shape)) * buffer.get_dtype().itemsize)
