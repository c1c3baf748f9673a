"""The plain engine, for one process: it prepares networks for the device and does their optimizer steps.

A GAN trains several networks, so an engine makes a `Learner` of each one: the network with its optimizer. `Update` (update.py) is one
optimizer step of one or more learners. DDP and DeepSpeed subclass `Engine` and `Learner` (ddp.py, deepspeed.py).
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as pytree

from collagan_dist import files
from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.adam import AdamStates
from collagan_dist.distributed.group import Group
from collagan_dist.distributed.precision import LossScale
from collagan_dist.distributed.sync_bn import convert_sync_batchnorm
from collagan_dist.errors import ConfigError
from collagan_dist.types import as_float32

# Each compiled function has its own limit of compilations: in a sweep a process trains many configurations. Older torch has no such option.
_ISOLATED: dict[str, Any] = (
    {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}
)
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

Tensors = dict[str, torch.Tensor]


class Learner:
    """A network with its Adam optimizer; called like the network, in training. This base class serves a single process.

    `module` is the network itself, without any wrapper; `parameters` are its trainable ones.
    """

    def __init__(self, engine: Engine, module: nn.Module, adam: Adam) -> None:
        self.engine, self.module, self.adam = engine, module, adam
        # Not all: a frozen network may be among them (GFC's parser), which neither Adam nor the gradient's norm may see.
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.scale = LossScale(engine.device) if engine.dtype == torch.float16 else None
        self.forward = self.wrap()
        self.optimizer = self.make_optimizer()

    def wrap(self) -> Callable[..., Any]:
        """Return what runs the forward pass in training."""
        return self.engine.compiled(self.module, "networks")

    def make_optimizer(self) -> Any:
        """Return the optimizer of the trainable parameters."""
        return AdamStates(self.parameters, self.adam.betas)

    def __call__(self, *args: Any) -> Any:
        """Run the network under autocast; its outputs are float32, as losses need them."""
        return self._run(self.forward, *args)

    def call_module(self, *args: Any) -> Any:
        """Run the network as a part of another network's loss, while it is `frozen`."""
        # The bare module: a DDP wrapper would wait for gradients that never come.
        return self._run(self.module, *args)

    def _run(self, network: Callable[..., Any], *args: Any) -> Any:
        with self.engine.autocast():
            return pytree.tree_map(as_float32, network(*args))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within it gradients flow through the network, but not into it."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)

    def set_grad_sync(self, last: bool) -> None:
        """Say, before a micro-batch's forward pass, whether its backward pass is the last one, which averages over ranks."""

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the loss times the loss scale of fp16."""
        return loss if self.scale is None else loss * self.scale.value

    def norm(self) -> torch.Tensor:
        """Return the gradient's L2 norm: a scalar on the device, equal on all ranks, not finite if any element is not.

        Collective.
        """
        # Parameters that took no part in the loss have no gradient.
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return norm if self.scale is None else norm / self.scale.value

    def apply(self, lr: float | torch.Tensor, factor: torch.Tensor | None, finite: torch.Tensor) -> None:
        """Do one Adam step with the gradient times `factor` (None: 1), or nothing where `finite` is false. Collective."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if factor is not None:
            torch._foreach_mul_(gradients, factor)
        # The learning rate is a function of the step's number, so there is no scheduler whose state a checkpoint must keep.
        self.optimizer.step(lr, finite)

    def zero_grad(self) -> None:
        """Drop the gradient, before an update."""
        for parameter in self.parameters:
            # None instead of 0: Adam skips a parameter without a gradient, and would move one with the gradient 0.
            parameter.grad = None

    def reload_master_parameters(self) -> None:
        """Copy the module's parameters, which were set from outside, to wherever the engine keeps copies of them."""

    def optimizer_state(self) -> dict[str, Tensors]:
        """Return Adam's state by parameter name: `exp_avg` and `exp_avg_sq` in the parameter's shape, and `step`. Collective."""
        state = self.optimizer.state
        return {name: dict(state[p]) for name, p in self.named_parameters() if state.get(p)}

    def load_optimizer_state(self, state: dict[str, Tensors]) -> None:
        """Take back what `optimizer_state` returned, on any engine and any number of ranks.

        Parameters without an entry start without a state.
        """
        for name, parameter in self.named_parameters():
            if name in state:
                self.optimizer.state[parameter] = {k: _in_layout_of(parameter, v) for k, v in state[name].items()}

    def optimizer_tensors(self) -> list[torch.Tensor]:
        """Return this rank's share of Adam's state on the device."""
        values = [value for state in self.optimizer.state.values() for value in state.values()]
        return [value for value in values if isinstance(value, torch.Tensor) and value.device == self.engine.device]

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Return the trainable parameters by name."""
        return ((name, p) for name, p in self.module.named_parameters() if p.requires_grad)


class Engine:
    """Training in one process."""

    learner_type: type[Learner] = Learner

    def __init__(self, runtime: Runtime, group: Group) -> None:
        self.runtime, self.group, self.device = runtime, group, group.device
        self.dtype = _AUTOCAST[runtime.precision]
        self.layout = torch.channels_last if runtime.channels_last else torch.contiguous_format

    def prepare_module(self, module: nn.Module) -> nn.Module:
        """Return the module on the device, in the configured memory layout, with sync_bn if it is configured."""
        # First, since it replaces modules: an optimizer made before would hold the parameters of the old ones.
        if self.runtime.sync_bn and self.group.world.size > 1:
            module = convert_sync_batchnorm(module, self.group)
        return module.to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]

    def in_layout(self, images: torch.Tensor) -> torch.Tensor:
        """Return images in the networks' memory layout: otherwise each first layer would convert them."""
        return images.contiguous(memory_format=self.layout)

    def compiled(self, function: Callable[..., Any], part: Literal["networks", "step"]) -> Callable[..., Any]:
        """Return the function, compiled if `runtime.compile` is about this part. Raises DiskFull where a compiler has no room."""
        if self.runtime.compile != {"networks": True, "step": "step"}[part]:
            return function
        files.check_temporary(Path(os.environ.get("TMPDIR", "/tmp")), "torch.compile")
        # It would warn of DDP's marks for profilers, which a compiled part leaves out.
        logging.getLogger("torch._dynamo.variables.ctx_manager").setLevel(logging.ERROR)
        # For one size of batch: a training has no other. What divides a part into several graphs is an error, but for DDP, whose
        # networks are graphs of their own.
        return torch.compile(
            function, dynamic=False, fullgraph=part == "step" and self.learner_type is Learner, **_ISOLATED
        )

    def learner(self, module: nn.Module, adam: Adam) -> Learner:
        """Return a learner of a prepared module. Raises ConfigError for the plain engine on several ranks."""
        if self.learner_type is Learner and self.group.world.size > 1:
            raise ConfigError(
                f"runtime.engine: plain trains on one rank only, this run has {self.group.world.size}; "
                "set runtime.engine to ddp"
            )
        if self.runtime.cuda_graph:
            self._check_cuda_graph()
        return self.learner_type(self, module, adam)

    def _check_cuda_graph(self) -> None:
        reason = ""
        if self.device.type != "cuda":
            reason = f"a CUDA graph needs a CUDA device, and this run is on {self.device.type}"
        elif self.group.world.size > 1:
            reason = (
                f"the {self.group.world.size} ranks of this run average gradients within a step, and a graph would hide from the "
                "hang detector which rank they wait for"
            )
        if reason:
            raise ConfigError(f"runtime.cuda_graph: {reason}; set it to false")

    def backward(self, learners: Sequence[Learner], losses: Sequence[torch.Tensor]) -> None:
        """Add the gradients of a micro-batch's losses, one for each learner. Collective on the last micro-batch."""
        # In one pass: the losses may come from one compiled graph, whose backward pass runs once.
        torch.autograd.backward([learner.scaled(loss) for learner, loss in zip(learners, losses, strict=True)])

    def autocast(self) -> AbstractContextManager:
        """Return a context in which networks run in the configured precision."""
        return torch.autocast(self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None)


def _in_layout_of(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """Return a copy of a value of Adam's state on the parameter's device, in its memory layout."""
    if value.shape != parameter.shape:  # the step counter
        return value.to(parameter.device, copy=True)  # Adam counts in place: never share it with the caller
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
