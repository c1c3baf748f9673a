"""Ways to train: engine, ZeRO stage, precision, accumulation, batch normalization; and what each is to be equal to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

STEPS = 10


@dataclass(frozen=True)
class Case:
    """One way, on two ranks; `plain` on one."""

    engine: str
    precision: str = "fp32"
    accumulate: int = 1
    sync_bn: bool = True
    compile: bool | str = False

    @property
    def ranks(self) -> int:
        return 1 if self.engine == "plain" else 2

    @property
    def name(self) -> str:
        switches = [f"accumulate-{self.accumulate}", *["sync"] * self.sync_bn, *["compile"] * self.compile]
        return "_".join([self.engine, self.precision, *switches])

    @property
    def changes(self) -> dict[str, object]:
        """As keyword arguments of `small`."""
        engine, _, stage = self.engine.partition("-")
        return {
            "runtime__engine": engine,
            "runtime__zero_stage": int(stage or 0),
            "runtime__precision": self.precision,
            "runtime__accumulate": self.accumulate,
            "runtime__sync_bn": self.sync_bn,
            "runtime__compile": self.compile,
        }

    @property
    def reference(self) -> Case | None:
        """DeepSpeed is to equal DDP; compiled DDP is to equal DDP; DDP one rank, whose batch statistics are those of all samples.

        Where each rank and part has its own statistics, one rank takes the batch in as many parts: they hold the same samples.
        Parts that span ranks hold others than those of one rank, so nothing is equal to them. And in float16 it hangs on how batch
        normalization is computed which gradients overflow, so that other steps may be skipped.
        """
        if self.engine == "plain":
            return None
        if self.engine != "ddp":
            return replace(self, engine="ddp")
        if self.compile:
            return replace(self, compile=False)
        if self.sync_bn:
            return None if self.accumulate > 1 or self.precision == "fp16" else replace(self, engine="plain")
        return replace(self, engine="plain", accumulate=2 * self.accumulate)


ENGINES = ("ddp", "deepspeed-0", "deepspeed-1", "deepspeed-2")
ROWS = [*product(("fp32", "bf16", "fp16"), (1, 2), (True, False), (False,)), ("fp32", 1, False, True)]
ALL = [Case(engine, *row) for row in ROWS for engine in ENGINES]
# Part of each run of the tests: every engine, without and with micro-batches and the loss scale.
OFTEN = [Case(engine, *row) for row in (("fp32",), ("fp16", 2, False)) for engine in ENGINES]
# Largest relative difference of a loss within ten steps, by precision.
WITHIN = {"fp32": 2e-3, "bf16": 0.03, "fp16": 0.03, "compile": 1e-3}


def with_references(cases: list[Case]) -> list[Case]:
    """The cases and all that they are compared with, each once."""
    references = [case.reference for case in cases if case.reference]
    return list(dict.fromkeys([*cases, *(with_references(references) if references else [])]))


WITH_REFERENCES = with_references(ALL)
