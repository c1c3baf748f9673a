"""A CUDA device that is not there: its tensors say cuda:0 and compute on the CPU, under the rules of a real device.

- Two devices in one operation, and `numpy()` of a CUDA tensor, are errors.
- Whatever makes the host wait for the device is counted, with its line.
- A non_blocking copy to the CPU arrives only when the host waits: until then its target holds rubbish. The source of a non_blocking
  copy to the device must not change until then.
- Every access to a tensor goes through torch's own race detector (torch.cuda._sanitizer): an access on one stream that is not
  ordered after another stream's write is an error.

Not covered: NCCL, nvJPEG, cuDNN's numbers, compiled kernels, memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

assert "torch" not in sys.modules, "the virtual device is loaded before torch"
ctypes.CDLL(os.environ["COLLAGAN_VIRTUAL_CUDA"], ctypes.RTLD_GLOBAL)  # hooks.cpp, compiled

import torch  # noqa: E402
from torch.cuda import _sanitizer  # noqa: E402
from torch.utils import _foreach_utils  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing  # noqa: E402
from torch.utils._pytree import tree_map  # noqa: E402

from tests.virtual.kernels import Kernels, tensors_of  # noqa: E402

DEVICE = torch.device("cuda", 0)
_RUBBISH = 77
_LOCK = threading.RLock()
_THREAD = threading.local()


class Race(AssertionError):
    """Two accesses that no stream orders, or a pinned buffer that changed before it was copied."""


class Record:
    """What the host did: waits by thread and then (kind, line), and kernels."""

    def __init__(self) -> None:
        self.waits: dict[int | None, Counter[tuple[str, str]]] = defaultdict(Counter)
        self.kernels = Kernels()

    def clear(self) -> None:
        self.waits.clear()
        self.kernels = Kernels()


RECORD = Record()
# Copies to the CPU that have not arrived: (target, what arrives). Pinned sources: (source, what it must still hold, line).
_arriving: list[tuple[torch.Tensor, torch.Tensor]] = []
_pinned_sources: list[tuple[torch.Tensor, torch.Tensor, str]] = []
_pinned: set[int] = set()  # addresses of pinned storages
_races = _sanitizer.EventHandler()


def line() -> str:
    """The innermost line of the package that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if "collagan_dist/" in code.co_filename:
            return f"{code.co_filename.rsplit('collagan_dist/', 1)[1]}:{frame.f_lineno} {code.co_name}"
        frame = frame.f_back
    return "backward"


class _Line(list[str]):
    """A stack trace of one line: torch's race detector would take the whole stack of every operation."""

    @staticmethod
    def extract(*_: Any, **__: Any) -> _Line:
        return _Line([line()])

    def format(self) -> list[str]:
        return list(self)


_sanitizer.traceback = types.SimpleNamespace(StackSummary=_Line, walk_stack=lambda frame: ())  # type: ignore[assignment]


def wait(kind: str) -> None:
    """The host waits here for the device."""
    if _graph() is not None:
        raise RuntimeError(f"operation not permitted when stream is capturing: {kind} at {line()}")
    RECORD.waits[threading.get_ident()][kind, line()] += 1
    with _LOCK:
        for target, value in _arriving:
            target.copy_(value)
        _arriving.clear()
        changed = [where for source, before, where in _pinned_sources if not torch.equal(source, before)]
        _pinned_sources.clear()
        _races._handle_device_synchronization()
    if changed:
        raise Race(f"{changed[0]}: the pinned source of a copy to the device changed before the copy was made")


class CudaTensor(torch.Tensor):
    """A tensor on the virtual device; `cpu_tensor` has its values."""

    cpu_tensor: torch.Tensor

    @staticmethod
    def __new__(cls, cpu_tensor: torch.Tensor) -> CudaTensor:
        assert type(cpu_tensor) is torch.Tensor, type(cpu_tensor)
        made = torch.Tensor._make_wrapper_subclass(
            cls, cpu_tensor.size(), strides=cpu_tensor.stride(), storage_offset=cpu_tensor.storage_offset(),
            dtype=cpu_tensor.dtype, device=DEVICE, requires_grad=False,
        )  # fmt: skip
        made.cpu_tensor = cpu_tensor
        return made

    # With these two, Module.to() exchanges a CPU parameter for one of this class.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["cpu_tensor"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> CudaTensor:
        return CudaTensor(inner["cpu_tensor"])

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"CudaTensor({self.cpu_tensor!r})"

    def record_stream(self, stream: Any) -> None:
        pass

    def tolist(self) -> Any:
        wait("tolist")
        return self.cpu_tensor.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    __array__ = numpy  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Mode(TorchDispatchMode):
    """Sees factories with device="cuda" and pinned memory, which no CudaTensor takes part in."""

    def __torch_dispatch__(self, func: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_of((args, kwargs))
        if _is_cuda(kwargs.get("device")) or any(isinstance(t, CudaTensor) for t in tensors):
            return _run(func, args, kwargs)
        name = func._schema.name
        if name == "aten::is_pinned":
            return args[0].untyped_storage().data_ptr() in _pinned
        pinned = kwargs.get("pin_memory") or name in ("aten::_pin_memory", "aten::pin_memory")
        if name in ("aten::_pin_memory", "aten::pin_memory"):
            made = args[0].clone()
        else:
            made = func(*args, **{key: value for key, value in kwargs.items() if key != "pin_memory"})
        if pinned:
            _pinned.add(made.untyped_storage().data_ptr())
        return made


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _cpu(value: Any) -> Any:
    return value.cpu_tensor if isinstance(value, CudaTensor) else value


def _cuda(value: Any) -> Any:
    return CudaTensor(value) if isinstance(value, torch.Tensor) and not isinstance(value, CudaTensor) else value


# Operations whose result's size depends on values, or that return a value to the host.
_WAITING = {"nonzero", "masked_select", "bincount", "unique_dim", "_unique2", "repeat_interleave", "equal"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation that has a CUDA tensor or makes one."""
    name = func._schema.name.removeprefix("aten::")
    tensors = tensors_of((args, kwargs))
    if any(t.is_inference() for t in tensors) and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    ):
        with Mode():  # in inference mode operations come here before they are taken apart
            done = func.decompose(*args, **kwargs)
        if done is not NotImplemented:
            return done
    if name == "_local_scalar_dense":
        wait("item")
        return func(*tree_map(_cpu, args), **kwargs)
    if name == "_to_copy":
        return _to_copy(func, args[0], dict(kwargs))
    if name == "copy_" and isinstance(args[0], CudaTensor) != isinstance(args[1], CudaTensor):
        return _copy_between(args[0], args[1], bool(args[2] if len(args) > 2 else kwargs.get("non_blocking")))
    ours = [t for t in tensors if isinstance(t, CudaTensor)]
    others = [t for t in tensors if not isinstance(t, CudaTensor) and t.dim()]
    if ours and others:
        if name not in _INDEXING:
            raise RuntimeError(f"Expected all tensors to be on the same device: {func} got cuda:0 and cpu at {line()}")
        wait("index from the CPU")
    if ours and name in _WAITING:
        wait(name)
    if ours and name in _INDEXING and any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in args[1]):
        wait("boolean index")
    inside = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    if _is_cuda(inside.get("device")):
        inside["device"] = torch.device("cpu")
    out = _compute(func, tree_map(_cpu, args), tree_map(_cpu, inside))
    RECORD.kernels.count(func, (args, kwargs), out)
    wrapped = tree_map(_cuda, out)
    _trace(func, args, kwargs, wrapped)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if ours else wrapped


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on values on the CPU, or capture it."""
    graph = _graph()
    return func(*args, **kwargs) if graph is None else graph.capture(func, args, kwargs)


def _graph() -> Graph | None:
    """The graph that captures what the current stream does."""
    graph = Graph.capturing
    # autograd's own thread has the default stream; threads with a stream of their own are not captured.
    return graph if graph is not None and current_stream() in (graph.stream, _default) else None


class Graph:
    """A CUDA graph: its operations, which read and write the same memory in each replay.

    While they are captured nothing changes on the device: what they wrote is put back at the end.
    """

    capturing: Graph | None = None

    def __init__(self) -> None:
        self.stream = Stream()
        self.operations: list[tuple[Any, Any, dict[str, Any], Any]] = []
        self.made: set[int] = set()  # addresses of memory that belongs to the graph
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def capture(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        for tensor in tensors_of((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self.made and storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = storage, storage.clone()
        out = func(*args, **kwargs)
        self.made |= {t.untyped_storage().data_ptr() for t in tensors_of(out)} - self.before.keys()
        self.operations.append((func, args, kwargs, out))
        return out

    def end(self) -> None:
        for storage, value in self.before.values():
            storage.copy_(value)
        self.before.clear()

    def replay(self) -> None:
        RECORD.kernels.operations["graph"] += 1
        for func, args, kwargs, out in self.operations:
            again = func(*args, **kwargs)
            for mine, fresh in zip(tensors_of(out), tensors_of(again), strict=True):
                if mine.data_ptr() != fresh.data_ptr():
                    mine.copy_(fresh)
            written = tree_map(_cuda, (args, out))
            _trace(func, written[0], tree_map(_cuda, kwargs), written[1])


@contextlib.contextmanager
def capturing(graph: Graph, capture_error_mode: str = "global") -> Iterator[None]:
    assert capture_error_mode == "thread_local", "the loader's thread would spoil the capture"
    wait("graph")
    Graph.capturing = graph
    try:
        with stream(graph.stream):
            yield
    finally:
        Graph.capturing = None
        graph.end()


def _to_copy(func: Any, source: torch.Tensor, kwargs: dict[str, Any]) -> Any:
    device, non_blocking = kwargs.pop("device", None), kwargs.pop("non_blocking", False)
    kwargs.pop("pin_memory", None)
    to_cuda = _is_cuda(device) if device is not None else isinstance(source, CudaTensor)
    if to_cuda and isinstance(source, CudaTensor):
        pass
    elif to_cuda:
        _to_device(source, non_blocking)
    else:  # also a non_blocking one: into memory that is not pinned
        RECORD.kernels.operations["copy to the host"] += 1
        wait("copy to the host")
    on_device = to_cuda and isinstance(source, CudaTensor)
    out = _compute(func, (_cpu(source),), kwargs) if on_device else func(_cpu(source), **kwargs)
    if on_device:
        RECORD.kernels.count(func, source, out)
    wrapped = CudaTensor(out) if to_cuda else out
    _trace(func, (source,), {}, wrapped)
    return wrapped


def _to_device(source: torch.Tensor, non_blocking: bool) -> None:
    RECORD.kernels.operations["copy to the device"] += 1
    RECORD.kernels.bytes["copy to the device"] += source.nbytes
    if non_blocking and source.untyped_storage().data_ptr() in _pinned:
        with _LOCK:
            _pinned_sources.append((source, source.clone(), line()))
    elif source.dim() or not non_blocking:  # memory that is not pinned is copied by the host
        wait("copy to the device")


def _copy_between(target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> torch.Tensor:
    if isinstance(target, CudaTensor):
        _to_device(source, non_blocking)
        target.cpu_tensor.copy_(source)
        _trace(torch.ops.aten.copy_.default, (target, source), {}, target)
        return target
    RECORD.kernels.operations["copy to the host"] += 1
    _trace(torch.ops.aten.copy_.default, (target, source), {}, target)
    if non_blocking and target.untyped_storage().data_ptr() in _pinned:
        with _LOCK:
            _arriving.append((target, _cpu(source).clone()))
        return target.fill_(_RUBBISH)
    wait("copy to the host")
    return target.copy_(_cpu(source))


class _Accesses(_sanitizer.ArgumentHandler):
    """What an operation reads and writes, by the addresses of the values on the CPU."""

    def _handle_argument(self, value: Any, **how: Any) -> None:  # type: ignore[override]
        if isinstance(value, CudaTensor):
            with contextlib.suppress(AttributeError):
                super()._handle_argument(_Located(value.cpu_tensor.untyped_storage().data_ptr()), **how)


class _Located(torch.Tensor):
    is_cuda = True  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, address: int) -> _Located:
        return torch.Tensor._make_subclass(cls, torch.empty(0))

    def __init__(self, address: int) -> None:
        self.address = address

    def data_ptr(self) -> int:
        return self.address


def _trace(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> None:
    """Tell torch's race detector of an operation on the current stream; a captured one runs in its replays."""
    if _graph() is not None:
        return
    with _LOCK:
        is_factory = bool(_sanitizer.FACTORY_FUNCTION_REGEX.match(func._schema.name.removeprefix("aten::")))
        accesses = _Accesses()
        accesses.parse_inputs(func._schema, args, kwargs, is_factory=is_factory)
        known = set(accesses.tensor_aliases)
        accesses.parse_outputs(func._schema, out, is_factory=is_factory)
        for fresh in set(accesses.tensor_aliases) - known:  # memory of a tensor that is gone is no longer its
            _races.tensors_accessed.accesses.pop(fresh, None)
        errors = _races._handle_kernel_launch(
            current_stream().cuda_stream, accesses.dataptrs_read - accesses.dataptrs_written, accesses.dataptrs_written,
            accesses.outputs, func._schema, accesses.tensor_aliases,
        )  # fmt: skip
    if errors:
        raise Race(f"{line()}: {errors[0]}")


class Stream:
    """A stream of the virtual device, known to the race detector by its number."""

    _count = 0

    def __init__(self, device: Any = None, *_: Any, **__: Any) -> None:
        self.device, self.cuda_stream = DEVICE, Stream._count
        Stream._count += 1
        _races._handle_stream_creation(self.cuda_stream)

    def synchronize(self) -> None:
        wait("stream.synchronize")

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)

    def wait_event(self, event: Event) -> None:
        _races._handle_event_wait(event.number, self.cuda_stream)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event


class Event:
    _count = 0

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        Event._count += 1
        self.number, self.time = Event._count, 0.0

    def record(self, stream: Stream | None = None) -> None:
        _races._handle_event_record(self.number, (stream or current_stream()).cuda_stream)
        self.time = time.perf_counter()

    def wait(self, stream: Stream | None = None) -> None:
        (stream or current_stream()).wait_event(self)

    def synchronize(self) -> None:
        wait("event.synchronize")

    def elapsed_time(self, other: Event) -> float:
        return (other.time - self.time) * 1000

    def query(self) -> bool:
        return True


_default = Stream()


def current_stream(device: Any = None) -> Stream:
    return getattr(_THREAD, "stream", _default)


@contextlib.contextmanager
def stream(one: Stream) -> Iterator[None]:
    before, _THREAD.stream = current_stream(), one
    try:
        yield
    finally:
        _THREAD.stream = before


def install() -> None:
    """Make torch.cuda the virtual device, in all threads."""
    properties = types.SimpleNamespace(
        name="virtual", uuid="GPU-virtual", major=9, minor=0, multi_processor_count=132, total_memory=1 << 37
    )
    answers: dict[str, Any] = {
        "_lazy_init": None, "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0,
        "set_device": None, "empty_cache": None, "is_bf16_supported": True, "get_device_properties": properties,
        "get_device_name": "virtual", "get_device_capability": (9, 0), "mem_get_info": (1 << 37, 1 << 37),
        "get_rng_state_all": [], "manual_seed_all": None, "manual_seed": None, "default_stream": _default,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.synchronize = lambda device=None: wait("cuda.synchronize")  # type: ignore[assignment]
    for made in (Stream, Event, current_stream, stream):
        setattr(torch.cuda, made.__name__, made)
    torch.cuda.CUDAGraph, torch.cuda.graph = Graph, capturing  # type: ignore[misc, assignment]
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, _made_on_the_cpu(getattr(torch, name)))
    _foreach_utils._foreach_supported_types.append(CudaTensor)
    Mode().__enter__()
    run = threading.Thread.run

    def run_with_mode(self: threading.Thread) -> None:
        with Mode():  # a mode belongs to a thread
            run(self)

    threading.Thread.run = run_with_mode  # type: ignore[method-assign]
    _install_dali()


def _made_on_the_cpu(real: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """torch.tensor(numbers, device="cuda") makes a tensor on the CPU and copies it, which waits."""

    def made(data: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        device = kwargs.pop("device", None)
        out = real(data, *args, **kwargs)
        return out if device is None else out.to(device)

    return made


def _install_dali() -> None:
    """Let the decoder's pipelines run on the CPU, their outputs being the virtual device's."""
    from collagan_dist.data.loading.dali_pipeline import DaliPipeline

    build, dlpack = DaliPipeline._build, torch.from_dlpack

    def build_on_cpu(self: Any) -> Any:
        device, self.device = self.device, torch.device("cpu")
        try:
            return build(self)
        finally:
            self.device = device

    def from_dlpack(value: Any, **how: Any) -> torch.Tensor:
        made = dlpack(value, **how)
        caller: Any = sys._getframe(1)
        while caller is not None and not isinstance(decoder := caller.f_locals.get("self"), DaliPipeline):
            caller = caller.f_back
        return CudaTensor(made) if caller is not None and decoder.device.type == "cuda" else made

    DaliPipeline._build = build_on_cpu  # type: ignore[method-assign]
    torch.from_dlpack = from_dlpack
