"""The tree of a run's configuration: typed, frozen, every key with its default and what it means.

A value that the paper leaves open names what it follows; the default is the best-founded choice.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from collagan_dist.config.models import TASK_WEIGHTS
from collagan_dist.config.strict_yaml import Section
from collagan_dist.types import FACE_SQUARE, POSITIONS, HoleKind, TestHole

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]


# Where O1 to O6 lie at 128x128 where landmarks are unknown: (top, left, height, width). What data/loading/occlusion_boxes.py gives for
# the mean landmarks of 102 photographs of upright faces, made symmetric.
FIXED_POSITIONS: dict[str, tuple[int, int, int, int]] = {
    "O1": (25, 27, 31, 39),
    "O2": (25, 62, 31, 39),
    "O3": (25, 27, 31, 74),
    "O4": (31, 29, 57, 35),
    "O5": (31, 64, 57, 35),
    "O6": (74, 32, 31, 64),
}


class Widths(Section):
    generator: Count = 64
    """Channels of the first encoder layer; doubled a layer up to 8 times this (decisions of pix2pix's unet_128)."""
    discriminator: Count = 64
    """Channels of each discriminator's first layer; doubled a layer."""


class CE(Section):
    """Context Encoder (Pathak 2016)."""

    bottleneck: Count = 4000
    """Channels of the bottleneck between encoder and decoder."""


class SII(Section):
    """Semantic image inpainting (Yeh 2017): a DCGAN in training, a search at test (evaluate.search)."""

    z: Count = 100
    """Length of the noise vector."""
    generator_updates: Count = 2
    """Updates of the generator for each of the discriminator (carpedm20's and bamos's DCGAN; DCGAN's paper has 1)."""


class GFC(Section):
    """Generative face completion (Li 2017)."""

    parser: str | None = None
    """Run folder or exported folder of a model that segments (preset `parser`), of any image_size. Where a run is continued, the
    weights that its checkpoint keeps count."""
    stages: tuple[Fraction, Fraction] = (0.5, 0.75)
    """Shares of the run after which the local discriminator begins, then the global one and the parsing loss."""
    parsing: Annotated[float, Field(ge=0)] = 0.0167
    """Weight of the parsing loss, a mean over pixels, for a reconstruction weight of 1: its code's 0.05 (models/gfc.py). 0: none."""


class Model(Section):
    name: Literal["collagan", "ce", "sii", "gfc"] = "collagan"
    """The paper's model, or one of its peers."""
    tasks: tuple[str, ...] = ("inpainting", "segmentation", "landmarks")
    """Ω. A task that is left out leaves no channels, no discriminator and no metric."""
    concentrated: bool = True
    """The inpainting-concentrated scheme of section 3.3 (eqs. 4-6): M* instead of M."""
    widths: Widths = Widths()
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """z of eq. 1: dropout probability in the first three decoder layers, in training only."""
    mask_channel: bool = False
    """Show the generator the hole as a fourth channel."""
    discriminators: Literal["per_task", "shared"] = "per_task"
    """One discriminator a task, or one that judges all outputs at once (tried and rejected in section 3.1)."""
    patch: Literal[94, 70] = 94
    """Pixels that a discriminator's logit sees: all five convolutions with stride 2 (section 3.4), or the last two with 1 (pix2pix)."""
    output_bias: Literal["mean", "zero"] = "mean"
    """Start of the output layer. `mean`: the targets' mean, without which sparse outputs stay at -1 for long."""
    heatmap_sigma: Positive = 3.0
    """Standard deviation of the landmark Gaussians, pixels of a 128x128 picture (scaled with image_size)."""

    ce: CE = CE()
    sii: SII = SII()
    gfc: GFC = GFC()

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError("needs at least one task, each at most once")
        return tasks


class TaskWeights(Section):
    adv: Annotated[float, Field(ge=0)]
    """λ_adv of eq. 1."""
    rec: Annotated[float, Field(ge=0)]
    """λ_rec of eq. 2."""


class Loss(Section):
    adv: Literal["ns", "minmax", "printed"] = "ns"
    """Adversarial form: non-saturating, the min-max game, or the equations as printed (1 - log D)."""
    adv_weighs: Literal["generator", "both"] = "generator"
    """Where λ_adv acts: on G's adversarial term, or as eq. 1 is printed, on D's term for fakes too."""
    weights: dict[str, TaskWeights] = {}
    """λ per task. What is not given takes section 4.2's value for the number of tasks."""
    inpainting_over: Literal["all", "hole"] = "all"
    """M*'s L1 (eq. 6) averaged over all pixels or over those of the hole; a hole of 1/4 makes `hole` 4 times larger."""
    l2: Literal["mean", "sum_channels"] = "mean"
    """L2 of label maps and heatmaps averaged over all elements, or summed over channels (11 and 5 times larger)."""


class Hole(Section):
    kind: HoleKind = "block"
    """Training holes of section 4.1: half-size block, random pattern of about 25 %, 80 % of the pixels, or no hole."""
    fill: Literal["paper", "noise", "zero", "mean"] = "paper"
    """What stands in the hole: the paper's (U(-1, 1); zeros in a pattern), U(-1, 1), zeros, or ImageNet's mean colour (CE)."""


class Augment(Section):
    shift: Fraction = 0.05
    """Largest shift, as a share of the picture's side."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 5.0
    """Largest rotation, degrees."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of scale."""
    flip: Fraction = 0.5
    """Probability of mirroring."""


class Cache(Section):
    """Copies of shards that lie behind a URL: one for all ranks of a node, and for all runs."""

    folder: str | None = None
    """Where they lie; null: collagan_dist/shards below $XDG_CACHE_HOME or ~/.cache."""
    gigabytes: Positive = 50.0
    """Most that they take, in 10^9 bytes; what was not used for longest makes room."""


class Data(Section):
    shards: str | None = None
    """Folder of shards made by `collagan pack`, or its URL (http, https, s3, gs, gcs, az, abfs)."""
    cache: Cache = Cache()
    split: str = "train"
    image_size: Literal[32, 64, 128, 256, 512] = 128
    augment: Augment = Augment()
    face_square: Annotated[float, Field(ge=2.0, le=4.0)] = FACE_SQUARE
    """Side of the picture over the larger extent of the landmarks (section 4.1: eyes, nose and mouth are inside)."""
    window: Annotated[int, Field(ge=1, le=256)] = 128
    """Shards that a run reads from at a time. A split of no more is shuffled whole; smaller windows suit network storage."""
    max_damaged: Annotated[int, Field(ge=0)] = 100
    """Samples damaged since packing that a start puts up with: each is named, and another shown in its place."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Decoding threads of a rank; 0 shares the machine's cores among its ranks."""


class Adam(Section):
    lr: Positive = 2e-4
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    decay_from: Fraction = 1.0
    """Share of the steps after which the learning rate falls linearly, ending at decay_to times itself."""
    decay_to: Fraction = 1.0
    clip: Annotated[float, Field(ge=0)] = 0.0
    """Largest L2 norm of a gradient, longer ones are shortened to it; 0 leaves them."""


class Optim(Section):
    generator: Adam = Adam()
    discriminators: Adam = Adam()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the generator that evaluation uses; 0 is off."""


class Schedule(Section):
    epochs: Count = 20
    """Length as passes over the split: ceil(epochs x samples / batch) steps."""
    steps: Count | None = None
    """Length in steps; wins over epochs."""
    batch: Annotated[int, Field(ge=2)] = 64
    """Global batch: samples of one step over all ranks."""
    adv_from: Annotated[int, Field(ge=0)] = 0
    """First step with the adversarial part."""


class Runtime(Section):
    engine: Literal["plain", "ddp", "deepspeed"] = "ddp"
    """How ranks train together; one rank alone is plain unless this is deepspeed."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    """DeepSpeed's ZeRO: 0 nothing, 1 optimizer state, 2 gradients too is shared out among ranks."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 are autocast: networks in 16 bits, logits, losses and optimizer in float32; fp16 scales its losses."""
    accumulate: Count = 1
    """Parts in which a rank takes its share of a batch, one after the other, to save memory. Batch statistics are a part's."""
    sync_bn: bool = False
    """Batch statistics over all ranks (and one part of each) instead of a rank's own."""
    compile: bool = False
    """torch.compile the networks in training."""
    channels_last: bool = False
    """Memory layout of pictures and convolutions; faster with bf16."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a rank for the networks; 0 shares the machine's cores among its ranks."""
    timeout: Count = 300
    """Seconds that ranks wait for one another in a step before the one that hangs is named and all stop."""
    rendezvous_timeout: Count = 120
    """Seconds that ranks wait for one another at the start."""
    straggler: Annotated[float, Field(ge=0)] = 2.0
    """A rank whose own part of a step takes this many times the others' median is named; 0 is never."""
    fail_on_straggler: bool = False
    """Stop, to be started again elsewhere, instead of only naming it."""

    @model_validator(mode="after")
    def _shared_out(self) -> Runtime:
        if self.zero_stage == 3:
            raise ValueError(
                "zero_stage: 3 shares out the parameters themselves, but each phase of a GAN step runs through the other network's "
                "plain module, whose parameters would not be there; use 2 (networks of this size fit any GPU whole)"
            )
        if self.zero_stage and self.engine != "deepspeed":
            raise ValueError(
                f"zero_stage: {self.zero_stage} is DeepSpeed's; set engine to deepspeed, or zero_stage to 0"
            )
        return self


class Checkpoint(Section):
    every: Count = 1000
    """Steps between checkpoints; there is always one of the last step."""
    keep: Count = 3
    """The newest so many stay."""
    max_failures: Count = 3
    """Checkpoints in a row that may fail to be written, as on a full disk, before the run stops (exit 5)."""


# (top, left, height, width) in pixels of a 128x128 picture.
Box = tuple[NonNegative, NonNegative, Count, Count]


class Search(Section):
    """SII at test: gradient descent on z (Yeh 2017, eq. 8)."""

    prior: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the prior loss -log D(G(z)) against the context loss, a sum over a picture's elements."""
    lr: Positive = 0.01
    steps: Count = 1000
    window: Annotated[int, Field(ge=1)] = 7
    """Side of the window whose share of missing pixels weighs a pixel's context loss."""


class Evaluate(Section):
    """How a model is looked at. Nothing here changes what is learned."""

    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations in training; 0 is never."""
    split: str = "valid"
    hole: TestHole | None = None
    """Holes of the evaluation; null: those of training. O1 to O6 are Table 1's positions."""
    positions: Literal["landmarks", "fixed"] = "landmarks"
    """Where O1 to O6 lie: around each picture's landmarks, or at `fixed`, as where landmarks are unknown."""
    fixed: dict[str, Box] = FIXED_POSITIONS
    samples: Count | None = None
    """Only the first n of the split, which packing has shuffled; null: all."""
    noise: bool = False
    """z of eq. 1 (dropout) at test too."""
    batch_norm: Literal["running", "batch"] = "running"
    """Statistics of batch normalization at test: those of training, or of the batch of 32 (pix2pix)."""
    readout: Literal["quarter", "argmax"] = "quarter"
    """Landmarks from heatmaps: the largest pixel, moved a quarter towards its larger neighbours or not. Both are reported."""
    ssim: Literal["uniform", "gaussian"] = "uniform"
    """Window of SSIM: 7 pixels, uniform (scikit-image's), or 11 pixels, Gaussian with σ 1.5 (Wang 2004)."""
    size: Literal[32, 64, 128, 256, 512] | None = None
    """Pixels at which pictures are compared, for models that complete any size (SII); null: data.image_size."""
    search: Search = Search()
    baselines: Annotated[int, Field(ge=0)] = 512
    """Samples on which the slow baselines (biharmonic inpainting) are computed, beside the model on the same ones."""


class Log(Section):
    every: Count = 50
    """Steps between lines of metrics.jsonl."""
    grid_every: Count = 500
    """Steps between picture grids."""
    sinks: tuple[Literal["jsonl", "tensorboard"], ...] = ("jsonl",)
    """Where numbers go. metrics.jsonl (jsonl) is always written, named or not; tensorboard adds event files in RUN/tensorboard."""


class Config(Section):
    """A whole run."""

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
    deterministic: bool = False
    """Ask torch for deterministic kernels (CPU runs are deterministic without it)."""

    @model_validator(mode="after")
    def _known_tasks(self) -> Config:
        for task in self.model.tasks:
            if task not in TASK_WEIGHTS:
                raise ValueError(f"model.tasks: there is no task {task!r}; choose from {', '.join(TASK_WEIGHTS)}")
        if self.model.name != "collagan" and (self.model.tasks != ("inpainting",) or self.model.concentrated):
            raise ValueError(f"model.name: {self.model.name} has the one task inpainting and no concentrated scheme")
        if self.model.name != "collagan" and self.model.output_bias != "zero":
            raise ValueError(f"model.output_bias: {self.model.name} starts as its code does; set it to zero")
        if self.model.name != "sii" and self.evaluate.size not in (None, self.data.image_size):
            raise ValueError(
                f"evaluate.size: this model completes pictures of {self.data.image_size} pixels only (data.image_size)"
            )
        if set(self.evaluate.fixed) != set(POSITIONS):
            raise ValueError(f"evaluate.fixed: needs a box for each of {', '.join(POSITIONS)}")
        for name, (top, left, height, width) in self.evaluate.fixed.items():
            if top + height > 128 or left + width > 128:
                raise ValueError(f"evaluate.fixed.{name}: (top, left, height, width) reaches beyond 128x128")
        for task in self.loss.weights:
            if task not in self.model.tasks:
                raise ValueError(f"loss.weights.{task}: the model has no such task ({', '.join(self.model.tasks)})")
        return self
