"""The DeepSpeed engine: one DeepSpeed engine per learner, with ZeRO stage 0, 1 or 2.

DeepSpeed does the forward and backward passes, the reduction and the step. What must equal the other engines is done here: loss
scale, verdict, clipping, learning rate, and checkpoints.
"""

# Some of DeepSpeed's internals are named here, where it offers no public way. Tests cover each of them, and they are those of the
# version that constraints.txt pins.

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from collagan_dist.config.tree import Adam, Runtime
from collagan_dist.distributed.engine import Engine, Learner, Tensors
from collagan_dist.distributed.group import LIBRARY_TIMEOUT_MARGIN_SECONDS, Group
from collagan_dist.errors import CheckpointError, ConfigError

_MAX_BUCKET_ELEMENTS = 2**24  # 64 MB of float32 reduced at a time; DeepSpeed's default takes 2 GB


class DeepSpeedLearner(Learner):
    """A learner under ZeRO 0: parameters, gradients and Adam's state lie where torch puts them."""

    def wrap(self) -> Callable[..., Any]:
        # DeepSpeed wraps it, so it must exist first. fused: one kernel for all parameters instead of a few for each.
        self.optimizer = torch.optim.Adam(self.parameters, lr=self.adam.lr, betas=self.adam.betas, fused=True)
        settings = deepspeed_config(self.engine.runtime, sum(p.numel() for p in self.parameters))
        self.deepspeed = _initialize(
            self.engine.compiled(self.module, "networks"), self.optimizer, settings, self.engine.group
        )
        return self.deepspeed

    def make_optimizer(self) -> Any:
        return self.optimizer

    def set_grad_sync(self, last: bool) -> None:
        self.deepspeed.set_gradient_accumulation_boundary(last)

    def apply(self, lr: float | torch.Tensor, factor: torch.Tensor | None, finite: torch.Tensor) -> None:
        # DeepSpeed's step cannot depend on a flag on the device: the host waits for it.
        with self.engine.group.collective("the verdict on an update"):
            is_finite = bool(finite)
        if not is_finite:
            self.zero_grad()
            return
        gradients = self._gradients()
        if factor is not None and gradients:
            torch._foreach_mul_(gradients, factor)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with self.engine.group.collective("DeepSpeed's step"):
            self.deepspeed.step()
            if self.engine.runtime.zero_stage:
                # It ends in an exchange of parameters. Waiting for it here, the hang detector sees which rank is missing.
                self.engine.group.synchronize()

    def _gradients(self) -> list[torch.Tensor]:
        """Return the tensors that the step will read."""
        return [p.grad for p in self.parameters if p.grad is not None]


class ZeroLearner(DeepSpeedLearner):
    """A learner under ZeRO 1 or 2: all parameters are one flat tensor, and each rank's Adam owns a slice of it, in float32."""

    def norm(self) -> torch.Tensor:
        # In float64, where the square of no float32 overflows.
        squares = torch.nn.utils.get_total_norm(self._gradients()).double().square()
        with self.engine.group.collective("the norm of the gradient"):
            dist.all_reduce(squares)
        norm = squares.sqrt().float()
        return norm if self.scale is None else norm / self.scale.value

    def zero_grad(self) -> None:  # also after an update that was not finite
        # What a backward pass has put aside for a step that was not done stays there: the next one's last pass replaces it.
        self.deepspeed.optimizer.zero_grad(set_to_none=True)

    def reload_master_parameters(self) -> None:
        self.deepspeed.optimizer.refresh_fp32_params()

    def optimizer_state(self) -> dict[str, Tensors]:
        from deepspeed.utils import safe_get_full_optimizer_state

        state = self.optimizer.state[self._slice]
        if not state:
            return {}
        with self.engine.group.collective("Adam's state of all ranks"):
            return {
                name: {"step": state["step"]} | {key: safe_get_full_optimizer_state(p, key) for key in _MOMENTS}
                for name, p in self.named_parameters()
            }

    def load_optimizer_state(self, state: dict[str, Tensors]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        named = dict(self.named_parameters())
        steps = {float(state[name]["step"]) if name in state else 0.0 for name in named}
        if len(steps) > 1:
            raise CheckpointError(
                f"parameters have taken different numbers of steps ({', '.join(f'{s:g}' for s in sorted(steps))}), but ZeRO "
                f"{self.engine.runtime.zero_stage} counts one for all; continue with runtime.zero_stage=0"
            )
        if steps == {0.0}:
            return
        mine = self._slice
        # Adam's state does not exist before the first step: make it, let DeepSpeed find it, then fill it by parameter.
        step = torch.tensor(steps.pop(), dtype=torch.float32, device=mine.device)
        self.optimizer.state[mine] = {"step": step} | {key: torch.zeros_like(mine) for key in _MOMENTS}
        self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()
        for name, parameter in named.items():
            for key in _MOMENTS:
                safe_set_full_optimizer_state(parameter, state[name][key].to(mine), key)

    @property
    def _slice(self) -> torch.Tensor:
        """The flat tensor that this rank's Adam holds in place of the parameters."""
        return self.optimizer.param_groups[0]["params"][0]

    def _gradients(self) -> list[torch.Tensor]:
        """Return this rank's slice of the averaged gradient, in pieces."""
        return [piece for pieces in self.deepspeed.optimizer.averaged_gradients.values() for piece in pieces]


_MOMENTS = ("exp_avg", "exp_avg_sq")


class DeepSpeedEngine(Engine):
    """Training with DeepSpeed, on one rank or more."""

    def __init__(self, runtime: Runtime, group: Group) -> None:
        super().__init__(runtime, group)
        self.learner_type = ZeroLearner if runtime.zero_stage else DeepSpeedLearner

    def prepare_module(self, module: nn.Module) -> nn.Module:
        # DeepSpeed flattens parameters, which needs the contiguous layout. Batches keep the configured one, and convolutions
        # follow their input.
        return super().prepare_module(module).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def learner(self, module: nn.Module, adam: Adam) -> Learner:
        # Here and not at the top: it takes seconds, and `collagan evaluate` builds an engine without a learner.
        _import_deepspeed(self.device)
        _join_group(self.group)
        return super().learner(module, adam)

    def backward(self, learners: Sequence[Learner], losses: Sequence[torch.Tensor]) -> None:
        for learner, loss in zip(learners, losses, strict=True):
            assert isinstance(learner, DeepSpeedLearner)
            # Losses come divided by the number of micro-batches: DeepSpeed must not divide again.
            learner.deepspeed.backward(learner.scaled(loss), scale_wrt_gas=False)


def deepspeed_config(runtime: Runtime, parameters: int) -> dict[str, Any]:
    """Return DeepSpeed's configuration for a learner with this number of parameters."""
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only counts samples with it
        "gradient_accumulation_steps": 1,  # `set_grad_sync` says which micro-batch is the last
        "gradient_clipping": 0.0,  # the default is 1
        "zero_optimization": {"stage": runtime.zero_stage, "reduce_bucket_size": min(parameters, _MAX_BUCKET_ELEMENTS)},
        "zero_allow_untested_optimizer": True,  # torch's Adam, as in the other engines
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
        "timers": {"throughput": {"enabled": False}},  # they would wait for the device in each step
    }
    if runtime.zero_stage:
        config["zero_optimization"]["compute_grad_norm"] = False  # `norm` has computed it already
    if runtime.precision != "fp32":
        # No safe modules: DeepSpeed would reduce their gradients in 16 bits.
        dtype = {"bf16": "bfloat16", "fp16": "float16"}[runtime.precision]
        config["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    return config


def _initialize(module: Any, adam: torch.optim.Optimizer, config: dict[str, Any], group: Group) -> Any:
    """Return a DeepSpeed engine of the module. Its `optimizer` is `adam`, or ZeRO's wrapper of it. Collective."""
    import deepspeed

    parameters = [p for p in module.parameters() if p.requires_grad]
    index = group.device.index if group.device.type == "cuda" else group.world.local_rank
    with _quiet(LOCAL_RANK=str(index or 0)), group.collective("DeepSpeed's start"):
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=adam, model_parameters=parameters, config=config, dist_init_required=False
        )
    # For float16 DeepSpeed would scale the loss too; LossScale does it, so that all engines skip the same steps.
    engine.torch_autocast_z0_gradscaler = None
    if config["zero_optimization"]["stage"]:
        engine.optimizer.torch_autocast_gradscaler = None
    return engine


def _import_deepspeed(device: torch.device) -> None:
    """Import DeepSpeed for a device, without its messages and environment variables. Raises ConfigError if it is missing."""
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(
            "runtime.engine: deepspeed is not installed; pip install 'collagan_dist[deepspeed]', or set runtime.engine to ddp"
        )
    with _quiet(DS_ACCELERATOR=device.type):
        import deepspeed
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*all_gather_into_tensor. is deprecated", FutureWarning)
    # On CPUs it would compile its own shared-memory communication at first use. That takes minutes, and hangs where a killed
    # compilation has left its lock. Gloo does the same job.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def _join_group(group: Group) -> None:
    """Make DeepSpeed use the ranks' process group; a single process gets one of its own. Collective."""
    from deepspeed import comm
    from deepspeed.utils import groups

    if group.world.size == 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if group.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        atexit.register(_destroy_group)
    if getattr(groups, _JOINED, None) is not dist.group.WORLD:  # not yet, or a former start in this process
        groups._release_process_group_references()
        comm.comm.cdb = None
        # Its clone of the group of all ranks. DeepSpeed would make it without the configured timeout.
        with group.collective("DeepSpeed's group"):
            groups._WORLD_GROUP = dist.new_group(
                timeout=timedelta(seconds=group.timeout + LIBRARY_TIMEOUT_MARGIN_SECONDS)
            )
        setattr(groups, _JOINED, dist.group.WORLD)


_JOINED = "_collagan_joined"


def _destroy_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _quiet(**variables: str) -> Iterator[None]:
    """Set these environment variables and print nothing; afterwards restore the environment."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
