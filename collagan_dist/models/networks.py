"""All that a run trains, as one object: networks, optimizers and moving average, to and from the tensors of a checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from collagan_dist.config.tree import Config
from collagan_dist.distributed.engine import Engine, Learner
from collagan_dist.runs import contents
from collagan_dist.runs.contents import LOSS_SCALE

Tensors = dict[str, torch.Tensor]


class Networks:
    """The generator, the discriminators and their learners. `ema` is the generator's moving average, or None.

    `separate_optimizers` names the members of the discriminators with a learner each; () for one learner of all of them.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        generator: nn.Module,
        discriminators: nn.Module,
        separate_optimizers: Sequence[str] = (),
    ) -> None:
        self.generator = engine.prepare_module(generator)
        self.discriminators = engine.prepare_module(discriminators)
        # A copy of the prepared module, so that it has the same memory layout and batch normalization.
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if config.optim.ema else None
        self.generator_learner = engine.learner(self.generator, config.optim.generator)
        members = {name: getattr(self.discriminators, name) for name in separate_optimizers}
        # By member; without members of their own, "" has the one learner of all discriminators.
        members = members or {"": self.discriminators}
        self.discriminator_learners = {n: engine.learner(m, config.optim.discriminators) for n, m in members.items()}

    @torch.no_grad()
    def average(self, decay: float, finite: torch.Tensor) -> None:
        """Move the average by 1 - decay towards the generator, running statistics included; not where `finite` is false."""
        if self.ema is not None:
            pairs = zip(self.ema.state_dict().values(), self.generator.state_dict().values(), strict=True)
            # Integers (batches that a normalization has counted) have no average, and no evaluation uses them.
            mine, theirs = zip(*((a, b) for a, b in pairs if a.is_floating_point()), strict=True)
            # lerp, but by a factor on the device; 0 for a step that was skipped.
            differences = torch._foreach_sub(theirs, mine)
            torch._foreach_mul_(differences, finite * (1 - decay))
            torch._foreach_add_(mine, differences)

    @property
    def discriminator_learner(self) -> Learner:
        """The one learner of all discriminators. Raises ValueError where each has its own."""
        (learner,) = self.discriminator_learners.values()
        return learner

    @contextmanager
    def frozen_discriminators(self) -> Iterator[None]:
        """Within it gradients flow through the discriminators, but not into them."""
        with ExitStack() as stack:
            for learner in self.discriminator_learners.values():
                stack.enter_context(learner.frozen())
            yield

    @property
    def eval_generator(self) -> nn.Module:
        """The generator that evaluation uses: the moving average if there is one."""
        return self.ema if self.ema is not None else self.generator

    def buffers(self) -> list[torch.Tensor]:
        """Return the running statistics. Each rank has its own; checkpoints and evaluations use those of rank 0."""
        modules = [self.generator, self.discriminators, *([self.ema] if self.ema is not None else [])]
        return [buffer for module in modules for buffer in module.buffers()]

    def finite(self) -> torch.Tensor:
        """Return whether all saved tensors that this rank holds are finite: a boolean scalar on the device."""
        modules = [self.generator, self.discriminators, *([self.ema] if self.ema is not None else [])]
        # Also Adam's state: a moment that is not finite spoils all later steps, while the parameters still look well.
        values = [value for module in modules for value in module.state_dict().values()]
        values += [value for _, learner in self._learners() for value in learner.optimizer_tensors()]
        return torch.stack([value.isfinite().all() for value in values]).all()

    def set_parameters(self) -> None:
        """Tell the engine that parameters were set from outside."""
        for _, learner in self._learners():
            learner.reload_master_parameters()

    def tensors(self) -> dict[str, Tensors]:
        """Return all tensors by file, with the same names for every engine and world size. Collective."""
        files = {"generator": self.generator.state_dict(), "discriminators": self.discriminators.state_dict()}
        # By parameter name and not by index, so that any engine can take it back.
        files["optimizer"] = {
            f"{prefix}{name}/{key}": value
            for prefix, learner in self._learners()
            for name, moments in learner.optimizer_state().items()
            for key, value in moments.items()
        }
        for prefix, learner in self._learners():
            if learner.scale is not None:
                files["optimizer"][f"{prefix}{LOSS_SCALE}"] = learner.scale.state()
        if self.ema is not None:
            files["ema"] = self.ema.state_dict()
        return files

    @property
    def checkpoint_bytes(self) -> int:
        """About how large a checkpoint becomes."""
        return checkpoint_bytes(self.generator, self.discriminators, self.ema is not None)

    def restore(self, files: dict[str, Tensors]) -> None:
        """Take back what `tensors` returned. Raises CheckpointError, before anything changes, if it does not fit."""
        self._check(files)
        self.generator.load_state_dict(files["generator"])
        self.discriminators.load_state_dict(files["discriminators"])
        if self.ema is not None:
            # A run that starts to average later starts from the generator.
            self.ema.load_state_dict(files.get("ema") or files["generator"])
        self.set_parameters()
        stored = files["optimizer"]
        for prefix, learner in self._learners():
            moments: dict[str, Tensors] = {}
            for path, value in stored.items():
                if path.startswith(prefix) and not path.endswith(LOSS_SCALE):
                    name, _, key = path.removeprefix(prefix).rpartition("/")
                    moments.setdefault(name, {})[key] = value
            learner.load_optimizer_state(moments)
            if learner.scale is not None and (scale := stored.get(f"{prefix}{LOSS_SCALE}")) is not None:
                learner.scale.load(scale)

    def _check(self, files: dict[str, Tensors]) -> None:
        modules = {"generator": self.generator, "discriminators": self.discriminators}
        if self.ema is not None and "ema" in files:
            modules["ema"] = self.ema
        for name, module in modules.items():
            contents.check_tensors(f"{name}.safetensors", files[name], module.state_dict())
        learners = {prefix: dict(learner.named_parameters()) for prefix, learner in self._learners()}
        contents.check_moments("optimizer.safetensors", files["optimizer"], learners)

    def _learners(self) -> Iterator[tuple[str, Learner]]:
        """Yield the prefix of each learner's names in the optimizer's file, and the learner."""
        yield "generator/", self.generator_learner
        for member, learner in self.discriminator_learners.items():
            yield f"discriminators/{member}." if member else "discriminators/", learner


def checkpoint_bytes(generator: nn.Module, discriminators: nn.Module, averages: bool) -> int:
    """Return the bytes of both networks, of two moments for each trained parameter, and of the generator's average if it `averages`."""
    of_generator, of_discriminators = (
        sum(t.nbytes for t in m.state_dict().values()) for m in (generator, discriminators)
    )
    trained = [p for module in (generator, discriminators) for p in module.parameters() if p.requires_grad]
    return of_generator * (1 + averages) + of_discriminators + sum(2 * p.nbytes for p in trained)


class BatchNormSnapshot:
    """A copy of the running statistics of some modules, to restore them later."""

    def __init__(self, *modules: nn.Module) -> None:
        self._buffers: dict[torch.dtype, list[torch.Tensor]] = {}
        for buffer in (buffer for module in modules for buffer in module.buffers()):
            self._buffers.setdefault(buffer.dtype, []).append(buffer)
        # One tensor of each type: a GPU waits for the host where there are many small operations.
        self._values = {dtype: _flat(buffers) for dtype, buffers in self._buffers.items()}

    @torch.no_grad()
    def restore(self, keep: torch.Tensor | None = None) -> None:
        """Put the copied statistics back; not where `keep`, a boolean scalar on the device, is true."""
        for dtype, buffers in self._buffers.items():
            value = self._values[dtype]
            if keep is not None:
                value = torch.where(keep, _flat(buffers), value)
            pieces = value.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(buffers, [piece.view_as(b) for piece, b in zip(pieces, buffers, strict=True)])


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
