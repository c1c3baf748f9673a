"""The settings of a run: every key with its type, its default and, below it, what it means.

Where the paper leaves a value open, the text names the source of the default. Lengths in pixels and shares say of what.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.config.strict_yaml import Section
from collagan_dist.types import FACE_SQUARE, MAX_WORKERS, POSITIONS, EvaluationHole, HoleKind

# Types of several keys. pydantic names the bound in its error.
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
# Numbers of weights must stay numbers that torch can count; whether a machine holds them is found when they are built.
Channels = Annotated[int, Field(ge=1, le=1 << 24)]
Length = Annotated[int, Field(ge=1, le=1 << 16)]
Threads = Annotated[int, Field(ge=0, le=MAX_WORKERS)]


def _check_step_or_share(value: object) -> object:
    # Before pydantic, whose union would report one error for each of its types.
    is_step = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_step and not (isinstance(value, float) and 0 <= value < 1):
        raise ValueError("needs a step (an integer from 0 on) or a share of the steps (a number below 1.0, as 0.9)")
    return value


StepOrShare = Annotated[NonNegative | Annotated[float, Field(ge=0, lt=1)], BeforeValidator(_check_step_or_share)]


# O1 to O6 as (top, left, height, width) in a 128x128 picture, for pictures whose landmarks are unknown. These are the boxes of
# data/loading/occlusion_boxes.py for the mean landmarks of 102 photographs of upright faces, made symmetric.
FIXED_POSITIONS: dict[str, tuple[int, int, int, int]] = {
    "O1": (25, 27, 31, 39),
    "O2": (25, 62, 31, 39),
    "O3": (25, 27, 31, 74),
    "O4": (31, 29, 57, 35),
    "O5": (31, 64, 57, 35),
    "O6": (74, 32, 31, 64),
}


class Widths(Section):
    """Channels of the networks."""

    # 64-128-256-512-512-512-512: unet_128 of pix2pix is the one with the paper's seven levels.
    generator: Channels = 64
    """Channels of the first encoder layer. Each layer doubles them, up to 8 times this (as unet_128 of pix2pix)."""
    discriminator: Channels = 64
    """Channels of each discriminator's first layer. Each layer doubles them (pix2pix)."""


class CE(Section):
    """Context Encoder (Pathak 2016): keys of model.name ce."""

    bottleneck: Length = 4000
    """Channels of the bottleneck between encoder and decoder (Pathak 2016)."""


class SII(Section):
    """Semantic image inpainting (Yeh 2017): keys of model.name sii. It trains a DCGAN; evaluate.search is its test."""

    z: Length = 100
    """Length of the noise vector (DCGAN)."""
    generator_updates: Count = 2
    """Generator updates per discriminator update (the DCGAN code of carpedm20 and bamos; DCGAN's paper has 1)."""


class GFC(Section):
    """Generative face completion (Li 2017): keys of model.name gfc."""

    parser: str | None = None
    """Run folder or exported folder of a model that segments (preset `parser`), of any image_size. A resumed run takes
    the parser's weights from its own checkpoint."""
    stages: tuple[Fraction, Fraction] = (0.5, 0.75)
    """Shares of the run's steps after which the local discriminator starts, then the global one with the parsing loss."""
    parsing: Annotated[float, Field(ge=0)] = 0.0167
    """Weight of the parsing loss, a mean over pixels, where reconstruction weighs 1; 0 turns it off. models/gfc.py derives
    the value from the 0.05 of Li's code."""


class Model(Section):
    """Which networks there are. Every key here is an identity key: a resumed run may not change it."""

    name: Literal["collagan", "ce", "sii", "gfc"] = "collagan"
    """The paper's model, or a peer of Table 1: Context Encoder, semantic inpainting, generative face completion."""
    tasks: tuple[str, ...] = ("inpainting", "segmentation", "landmarks")
    """Ω of eq. 1. A task that is left out has no output channels, no discriminator and no metrics."""
    init: str | None = None
    """Run folder or exported folder from whose weights a new run starts (`--init`). Its tasks and image_size may be others: what has the
    shape of this model's tensors is taken. Of other widths there is nothing to take, which is an error."""
    concentrated: bool = True
    """Use the inpainting-concentrated scheme of section 3.3 (eqs. 4-6): M* instead of M."""
    widths: Widths = Widths()
    """Channels of the networks."""
    # The paper does not say where z enters; it builds on pix2pix, whose z is dropout.
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """z of eq. 1: dropout probability in the first three decoder layers, in training only (pix2pix)."""
    # Without it, the generator can tell a hole by its fill alone.
    mask_channel: bool = False
    """Give the generator the hole as a fourth input channel; the paper gives the picture alone."""
    discriminators: Literal["per_task", "shared"] = "per_task"
    """One discriminator per task, or one for all outputs together (section 3.1 reports that this is worse)."""
    patch: Literal[94, 70] = 94
    """Side in pixels of the patch behind one logit of a discriminator. 94: all five convolutions have stride 2 (section 3.4);
    70: the last two have stride 1 (pix2pix)."""
    normalize: Literal["inner", "each"] = "inner"
    """Layers with batch normalization: all but the first and the last of each network, and but the generator's innermost one; or each one, but
    for the logits of a discriminator."""
    output_bias: Literal["mean", "zero"] = "mean"
    """Initial bias of the output layer: zero, or the mean of the targets. With zero, sparse outputs (heatmaps, small
    classes) stay at -1 for many steps."""
    heatmap_sigma: Positive = 3.0
    """Standard deviation of the landmark Gaussians, in pixels of a 128x128 picture; other image_sizes scale it."""

    ce: CE = CE()
    """Used when name is ce."""
    sii: SII = SII()
    """Used when name is sii."""
    gfc: GFC = GFC()
    """Used when name is gfc."""

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError("needs at least one task, each at most once")
        return tasks


class TaskWeights(Section):
    """The two λ of one task."""

    adv: Annotated[float, Field(ge=0)]
    """λ_adv of eq. 1: weight of the adversarial loss."""
    rec: Annotated[float, Field(ge=0)]
    """λ_rec of eq. 2: weight of the reconstruction loss."""


class Loss(Section):
    """What is minimised. Identity keys."""

    # For the generator, ns is the printed term up to a constant; the discriminator has cross-entropy.
    adv: Literal["ns", "minmax", "printed"] = "ns"
    """Form of the adversarial loss: non-saturating (Goodfellow 2014), the min-max game, or as eq. 1 is printed (1 - log D)."""
    adv_weighs: Literal["generator", "both"] = "generator"
    """What λ_adv multiplies: the generator's adversarial term, or also the discriminator's term for fakes, as eq. 1 prints."""
    # Empty here: the defaults depend on the number of tasks, so load.validate_config fills them in.
    weights: dict[str, TaskWeights] = {}
    """λ per task. One that is not given has section 4.2's value for the number of tasks (config/models.py)."""
    inpainting_over: Literal["all", "hole"] = "all"
    """Pixels over which the L1 of M* (eq. 6) is averaged: all, or those of the hole. A hole of 1/4 makes `hole` 4 times larger."""
    l1: Literal["mean", "sum_channels"] = "mean"
    """L1 of completions: averaged over all elements, or summed over channels, which is 3 times larger."""
    l2: Literal["mean", "sum_channels", "norm"] = "mean"
    """L2 of label maps and heatmaps: squares averaged over all elements, or summed over channels, which is 11 and 5 times larger; or
    the norm of each sample's difference, not squared, averaged over samples."""


class Hole(Section):
    """The occluded regions of training. Identity keys."""

    kind: HoleKind = "block"
    """Holes of section 4.1: a block of half the side, a random pattern of about 25 %, 80 % of the pixels (noise), or none."""
    fill: Literal["paper", "noise", "zero", "mean", "smooth"] = "paper"
    """Values in the hole. `paper`: uniform noise in [-1, 1], but zeros in a pattern; `noise` and `zero`: one of them for
    every kind; `mean`: ImageNet's mean colour (CE); `smooth`: the colours at the hole's border, continued into it."""


class Augment(Section):
    """Random geometry of training pictures. The paper names none (docs/paper.md)."""

    shift: Fraction = 0.05
    """Largest shift in each direction, as a share of the picture's side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 5.0
    """Largest rotation in either direction, in degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of scale: 0.1 is 0.9 to 1.1."""
    flip: Fraction = 0.5
    """Probability of mirroring left and right."""


class Cache(Section):
    """Local copies of remote shards. All ranks of a node and all runs share one cache."""

    folder: str | None = None
    """Folder of the cache; null: collagan_dist/shards below $XDG_CACHE_HOME or ~/.cache."""
    gigabytes: Positive = 50.0
    """Largest size, in 10^9 bytes. When it is full, the least recently used shards are deleted."""


class Data(Section):
    """The training pictures. Identity keys, except shards, cache, keep, threads and max_damaged."""

    shards: str | None = None
    """Folder made by `collagan pack` or `collagan adopt`, or its URL (http, https, s3, gs, gcs, az, abfs, hf)."""
    cache: Cache = Cache()
    """Local copies of remote shards."""
    split: str = "train"
    """Split that is trained on."""
    # Powers of two: each level of the networks halves the size.
    image_size: Literal[32, 64, 128, 256, 512] = 128
    """Side of the pictures in pixels (section 4.1: 128)."""
    augment: Augment = Augment()
    """Random geometry of training pictures."""
    # Shards store MARGIN times FACE_SQUARE; what a wider view lacks is reflected at the border.
    face_square: Annotated[float, Field(ge=2.0, le=4.0)] = FACE_SQUARE
    """Side of the picture divided by the larger extent of the landmarks (section 4.1: eyes, nose and mouth are inside)."""
    window: Annotated[int, Field(ge=1, le=256)] = 128
    """Shards that a run reads from at a time. A split with at most this many is fully shuffled.
    Smaller windows suit network storage."""
    keep: Literal["none", "host", "device"] = "none"
    """Where decoded pictures stay after the first epoch, so that later ones decode nothing: nowhere, in the memory of the host (once for
    all ranks of a node), or in that of each rank's device."""
    max_damaged: Annotated[int, Field(ge=0)] = 100
    """Most samples damaged since packing that a run accepts. Each is named and replaced by another sample."""
    threads: Threads = 0
    """Decoding threads of a rank; 0 divides the machine's cores among its ranks."""


class Adam(Section):
    """One Adam optimizer."""

    # The paper prints 0.01 (preset paper), far above the rates of the work that it builds on.
    lr: Positive = 2e-4
    """Learning rate (pix2pix)."""
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    """Decay of the two moment estimates (pix2pix)."""
    decay_from: Fraction = 1.0
    """Share of the run's steps after which the learning rate falls linearly; 1 never."""
    decay_to: Fraction = 1.0
    """Last learning rate as a share of lr."""
    clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest L2 norm of the gradient; longer ones are scaled down to it. 0: no clipping."""


class Optim(Section):
    """The optimizers. Identity keys."""

    generator: Adam = Adam()
    """Optimizer of the generator."""
    discriminators: Adam = Adam()
    """Optimizer of the discriminators."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the generator's exponential moving average. Evaluation uses the average; 0: no average."""


class Schedule(Section):
    """How long a run is. Only batch is an identity key: a run may be made longer."""

    epochs: Count = 20
    """Length in passes over the split: ceil(epochs x samples / batch) steps."""
    steps: Count | None = None
    """Length in steps; takes precedence over epochs."""
    batch: Annotated[int, Field(ge=2)] = 64
    """Global batch size: samples of one step over all ranks."""
    adv_from: StepOrShare = 0
    """First step with the adversarial loss: a step (an integer), or a share of the run's steps (a number below 1.0, as 0.9).
    The steps before it have the reconstruction loss alone. A share moves with the length of the run."""

    def adversarial_start(self, total_steps: int) -> int:
        """Return the first step with the adversarial loss in a run of `total_steps`; a share leaves at least one such step."""
        if isinstance(self.adv_from, int):
            return self.adv_from
        # The tolerance: 0.29 of 100 steps is 28.999999999999996 in floating point.
        return min(int(self.adv_from * total_steps + 1e-6), total_steps - 1)


class Runtime(Section):
    """How ranks compute. No identity key: a run may be resumed with other values."""

    engine: Literal["plain", "ddp", "deepspeed"] = "ddp"
    """How ranks train together. A single rank uses `plain`, unless this is deepspeed."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """What DeepSpeed's ZeRO shards across ranks: 0 nothing, 1 optimizer state, 2 gradients too."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 use autocast: networks in 16 bits; logits, losses and optimizer in float32. fp16 scales its losses."""
    accumulate: Count = 1
    """Micro-batches of a rank per step: more of them need less memory. Batch normalization sees one micro-batch at a time."""
    sync_bn: bool = False
    """Batch normalization over the micro-batches of all ranks instead of the rank's own."""
    compile: Literal[False, True, "step"] = False
    """Compile with torch.compile in training: `true` the networks; `step` the networks with their inputs, targets and losses."""
    cuda_graph: bool = False
    """Capture a step as a CUDA graph and replay it, on one GPU: it helps where launching operations takes longer than they do.

    The graph keeps the memory of a step."""
    channels_last: bool = False
    """Use torch's channels_last memory format for pictures and convolutions; it is faster with bf16."""
    threads: Threads = 0
    """CPU threads of a rank for the networks; 0 divides the machine's cores among its ranks."""
    timeout: Count = 300
    """Seconds that ranks wait for each other in a step. Then the rank that hangs is named and all stop."""
    rendezvous_timeout: Count = 120
    """Seconds that ranks wait for each other at the start."""
    straggler: Annotated[float, Field(ge=0)] = 2.0
    """Name a rank as straggler when its own part of a step takes this many times the others' median; 0: never."""
    fail_on_straggler: bool = False
    """Stop when there is a straggler, so that the launcher can restart the run elsewhere, instead of only naming it."""

    # The message of a section's validator begins with the key that it is about; strict_yaml finds the line by it.
    @model_validator(mode="after")
    def _zero_needs_deepspeed(self) -> Runtime:
        if self.zero_stage == 3:
            raise ValueError(
                "zero_stage: 3 shards the parameters, but each update of a GAN step runs the other network's plain module, whose "
                "parameters would be missing; use 2 (networks of this size fit on any GPU)"
            )
        if self.zero_stage and self.engine != "deepspeed":
            raise ValueError(
                f"zero_stage: {self.zero_stage} is DeepSpeed's; set engine to deepspeed, or zero_stage to 0"
            )
        return self

    @model_validator(mode="after")
    def _graph_needs_a_step_that_does_not_wait(self) -> Runtime:
        if self.cuda_graph and self.engine == "deepspeed":
            raise ValueError(
                "cuda_graph: DeepSpeed's step waits for the host; set engine to ddp, or cuda_graph to false"
            )
        return self

    @model_validator(mode="after")
    def _step_is_compiled_as_a_whole(self) -> Runtime:
        if self.compile == "step" and self.engine == "deepspeed":
            raise ValueError(
                "compile: step compiles networks and losses together, and DeepSpeed runs its networks itself; "
                "set engine to ddp, or compile to true"
            )
        if self.compile == "step" and self.sync_bn:
            raise ValueError(
                "compile: step has no place for sync_bn, whose ranks exchange statistics in the middle of a forward pass; "
                "set sync_bn to false, or compile to true"
            )
        return self


class Checkpoint(Section):
    """When the state of a run is saved."""

    every: Count = 1000
    """Steps between checkpoints; the last step always has one."""
    # More than one: if the newest is damaged, a run resumes from the one before.
    keep: Count = 3
    """Number of newest checkpoints that are kept."""
    max_failures: Count = 3
    """Failed checkpoints in a row, as on a full disk, before the run stops with exit code 5."""
    copy_to: str | None = None
    """Folder or URL (s3, gs, gcs, az, abfs) below which checkpoints are copied, in a folder of the run folder's name. A start whose
    run folder has none as new goes on from there. null: no copies."""


# (top, left, height, width) in pixels of a 128x128 picture; other image_sizes scale it.
Box = tuple[NonNegative, NonNegative, Count, Count]


class Search(Section):
    """How SII completes a picture at test: gradient descent on z (Yeh 2017, eq. 8)."""

    prior: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the prior loss -log D(G(z)); the context loss, a sum over a picture's elements, weighs 1."""
    lr: Positive = 0.01
    """Adam's learning rate for z (bamos's code)."""
    steps: Count = 1000
    """Updates of z (bamos's code)."""
    window: Annotated[int, Field(ge=1)] = 7
    """Side in pixels of the window around a pixel. The share of missing pixels in it is the pixel's weight in the context loss."""


class Evaluate(Section):
    """How a model is evaluated. Nothing here changes what it learns."""

    # Off: an evaluation of a split takes as long as many steps, and stops all ranks.
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations in training; 0: none."""
    split: str = "valid"
    """Split of the evaluations in training."""
    hole: EvaluationHole | None = None
    """Kind of hole; null: that of training. O1 to O6 are the positions of Table 1."""
    # Faces are not aligned, so a box at a fixed position would often miss the part that its column names.
    positions: Literal["landmarks", "fixed"] = "landmarks"
    """O1 to O6 lie around each picture's landmarks, or at `fixed`. Pictures without landmarks always have `fixed`."""
    fixed: dict[str, Box] = FIXED_POSITIONS
    """The boxes of O1 to O6: (top, left, height, width) in pixels of a 128x128 picture."""
    # The face square is found from the landmarks, so that without it a constant finds them (docs/paper.md).
    augment: bool = False
    """Shift, turn and scale the views of an evaluation by the law of data.augment, without mirroring, as a function of the sample
    alone: all models, seeds and ranks see the same."""
    samples: Count | None = None
    """Number of samples, the first of the split, which packing has shuffled; null: all."""
    noise: bool = False
    """Keep z of eq. 1 (dropout) at test too."""
    batch_norm: Literal["running", "batch"] = "running"
    """Statistics of batch normalization at test: the running ones of training, or those of the batch of 32 (pix2pix)."""
    readout: Literal["quarter", "argmax"] = "quarter"
    """A landmark is the largest pixel of its heatmap, moved a quarter pixel towards the larger neighbour or not. Both are
    reported; this one is the headline."""
    ssim: Literal["uniform", "gaussian"] = "uniform"
    """Window of SSIM: uniform, 7 pixels (scikit-image), or Gaussian, 11 pixels, σ 1.5 (Wang 2004)."""
    size: Literal[32, 64, 128, 256, 512] | None = None
    """Side in pixels at which pictures are compared; null: data.image_size. Other sizes are for SII alone."""
    search: Search = Search()
    """The search of SII."""
    # PSNR alone prefers blur.
    features: str | None = None
    """A network in whose features completions are compared too (`frechet`, `perceptual`): the folder of a model that segments, or a
    file of the weights of Inception or LPIPS (docs/run-folder.md); null: none."""
    baselines: Annotated[int, Field(ge=0)] = 512
    """Samples on which the baselines are computed besides the model; biharmonic inpainting is slow."""


class Log(Section):
    """What a run reports while it trains."""

    every: Count = 50
    """Steps between lines of metrics.jsonl."""
    grid_every: Count = 500
    """Steps between picture grids."""
    sinks: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow"], ...] = ("jsonl",)
    """Metrics sinks. metrics.jsonl is always written, listed or not; tensorboard adds event files in RUN/tensorboard, wandb a run of
    W&B (offline in RUN/wandb unless WANDB_MODE is set), mlflow one of MLflow (in RUN/mlflow unless MLFLOW_TRACKING_URI is set)."""


class Config(Section):
    """All settings of a run: the content of RUN/config.yaml."""

    model: Model = Model()
    loss: Loss = Loss()
    hole: Hole = Hole()
    data: Data = Data()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    runtime: Runtime = Runtime()
    checkpoint: Checkpoint = Checkpoint()
    evaluate: Evaluate = Evaluate()
    log: Log = Log()
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random: initial weights, order, geometry, holes, noise, dropout (rng.py)."""
    deterministic: bool = False
    """Ask torch for deterministic kernels, and continue with the number of threads of the checkpoint. CPU runs are deterministic without it."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Config:
        for task in self.model.tasks:
            if task not in TASK_WEIGHTS:
                raise ValueError(f"model.tasks: there is no task {task!r}; choose from {', '.join(TASK_WEIGHTS)}")
        # The peers of Table 1 are compared as they were published, so the paper's own choices do not apply to them.
        if self.model.name != "collagan" and (self.model.tasks != ("inpainting",) or self.model.concentrated):
            raise ValueError(f"model.name: {self.model.name} has the one task inpainting and no concentrated scheme")
        if self.model.name != "collagan" and self.model.output_bias != "zero":
            raise ValueError(f"model.output_bias: {self.model.name} starts as its code does; set it to zero")
        if self.model.name != "sii" and self.evaluate.size not in (None, self.data.image_size):
            raise ValueError(
                f"evaluate.size: this model completes pictures of {self.data.image_size} pixels only (data.image_size)"
            )
        # A mapping that is given replaces the default one, so it must be complete.
        if set(self.evaluate.fixed) != set(POSITIONS):
            raise ValueError(f"evaluate.fixed: needs a box for each of {', '.join(POSITIONS)}")
        for name, (top, left, height, width) in self.evaluate.fixed.items():
            if top + height > 128 or left + width > 128:
                raise ValueError(f"evaluate.fixed.{name}: (top, left, height, width) reaches beyond 128x128")
        # A λ without its task would be ignored, and the mistake remain unseen.
        for task in self.loss.weights:
            if task not in self.model.tasks:
                raise ValueError(f"loss.weights.{task}: the model has no such task ({', '.join(self.model.tasks)})")
        return self
