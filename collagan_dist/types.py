"""Types and constants that all parts share: label classes, landmarks, samples, batches, the world of ranks.

Tensor names end with their shape: B samples of a batch, C label classes, K landmarks, H rows, W columns. Images are RGB
floats in [-1, 1], pictures are uint8. Pixel coordinates are (x, y), integers at pixel centres. "Left" is left in the
picture. `hole` is 1 inside the occluded region: the complement of the paper's M.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    import numpy as np
    import torch

# Classes of label maps, in the order of their 8-bit values: those of Table 2, background and hair.
CLASSES: Final = (
    "background",
    "face",
    "left_eyebrow",
    "right_eyebrow",
    "left_eye",
    "right_eye",
    "nose",
    "upper_lip",
    "teeth",
    "lower_lip",
    "hair",
)
# The classes of Table 2; background and hair are learned but not scored.
SCORED_CLASSES: Final = CLASSES[1:10]
SPLITS: Final = ("train", "valid", "test")
# CelebA's five points, in the order of its annotation file.
LANDMARKS: Final = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

# Mirroring a picture exchanges left and right: class c becomes CLASS_FLIP[c], point k becomes LANDMARK_FLIP[k].
CLASS_FLIP: Final = (0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10)
LANDMARK_FLIP: Final = (1, 0, 2, 4, 3)

# Kinds of holes (data/loading/holes.py).
HoleKind = Literal["block", "pattern", "noise", "none"]
# The positions of Table 1, at test only: left eye, right eye, upper, left, right and lower face.
Position = Literal["O1", "O2", "O3", "O4", "O5", "O6"]
POSITIONS: Final[tuple[str, ...]] = get_args(Position)
EvaluationHole = Literal[HoleKind, Position]

# The side of the face square is FACE_SQUARE times the larger extent of the landmarks. Shards store a square that is MARGIN
# times as large, which contains every augmented view.
FACE_SQUARE: Final = 3.2
MARGIN: Final = 1.3

# The face square of a sample that has a label map but no landmarks, from the box around classes 1 to 9 (the face without
# hair): its side, and the height of its centre above the box's lower edge (the chin), as shares of the box's width.
# They are medians over samples that have both, chosen to give the square of the landmarks. Side: 1.65 on 400 drawn faces,
# 1.60 and 1.57 on 102 photographs (in the wild, aligned). Centre: 0.58, 0.56, 0.56. So the two squares differ by at most
# 3 % in side and 1 % of it in position. The box's height is not used: a fringe changes it (side / height 1.47 on drawn
# faces, 1.17 on photographs).
LABEL_SQUARE: Final = 1.62
LABEL_CHIN: Final = 0.57


# Of one picture, hole, label map or grid, wherever it comes from: a decompression bomb is refused from its header.
MAX_PIXELS: Final = 64_000_000

# Processes, or threads of one, on a machine: more are a slip, and a system that has no room for them ends the process, or others.
MAX_WORKERS: Final = 1024

# The longest file name of a sample in a shard, `KEY.seg.png`, must fit into the 100 bytes of a USTAR header.
MAX_KEY_BYTES: Final = 92


@dataclass(frozen=True)
class ArchiveMember:
    """A file in a zip or tar archive. The archive is never unpacked (data/readers/archives.py)."""

    archive: str
    name: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


@dataclass(frozen=True)
class FileInMemory:
    """A file that came over the network, by its name there. It is never written to disk."""

    name: str
    content: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.name


# Where a file is that is read: a path, a member of an archive, or the memory.
File = str | ArchiveMember | FileInMemory


@dataclass(frozen=True)
class PartMasks:
    """A label map that is published as one mask per part of the face: the files PREFIX_<part>.png."""

    prefix: str


@dataclass(frozen=True)
class Sample:
    """One annotated picture as a reader (data/readers) returns it. Packing opens its files.

    `key` is its name in the shards, unique and at most MAX_KEY_BYTES long; `source` names the picture in messages.
    `landmarks` are five (x, y) pairs in pixels of the picture. `identity` is the person, where the data set has one.
    """

    key: str
    source: str
    path: File
    split: str
    landmarks: tuple[tuple[float, float], ...] | None = None
    labels: File | PartMasks | None = None
    identity: str | None = None


@dataclass(frozen=True)
class World:
    """The place of this process among the ranks of a run. `node` counts machines; `launcher` is ray, torchrun, srun, mpi, environment or alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0
    launcher: str = "alone"

    @property
    def is_rank0(self) -> bool:
        return self.rank == 0


@dataclass
class Batch:
    """One batch of training or evaluation, on the device of the networks (ids_B and epoch_B on the CPU).

    image_B3HW   the picture without a hole, y_i of eq. 1, in [-1, 1].
    input_B3HW   the picture with its hole filled, x of eq. 1.
    hole_B1HW    1 inside the occluded region.
    label_BHW    uint8 classes, or None when the data set has no label maps.
    points_BK2   landmarks (x, y) in pixels of image_B3HW, or None when the data set has none.
    ids_B        sample numbers within the split; epoch_B their epochs.
    keys_B2      int32 keys of each sample's random tensors (rng.py).
    """

    image_B3HW: torch.Tensor
    input_B3HW: torch.Tensor
    hole_B1HW: torch.Tensor
    label_BHW: torch.Tensor | None
    points_BK2: torch.Tensor | None
    ids_B: np.ndarray
    epoch_B: np.ndarray
    keys_B2: torch.Tensor

    def tensors(self) -> list[torch.Tensor]:
        """Return all tensors on the device."""
        maybe = (self.image_B3HW, self.input_B3HW, self.hole_B1HW, self.label_BHW, self.points_BK2, self.keys_B2)
        return [tensor for tensor in maybe if tensor is not None]

    def clone(self) -> Batch:
        """Return a copy with tensors of its own, in the same memory layout."""
        return replace(self, **{name: value.clone() for name, value in vars(self).items() if hasattr(value, "clone")})

    def split(self, parts: int) -> list[Batch]:
        """Split the batch into `parts` equal parts; `parts` divides B."""
        size = len(self.ids_B) // parts
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return [replace(self, **{n: v[i * size : (i + 1) * size] for n, v in fields.items()}) for i in range(parts)]


def as_float32(x: torch.Tensor) -> torch.Tensor:
    """Return x in float32, or in float64 if it is: outputs, logits and losses are never narrower than float32."""
    import torch  # here: the command line imports this module, and torch takes seconds

    return x.to(torch.promote_types(x.dtype, torch.float32))


def is_channels_last(tensor: torch.Tensor) -> bool:
    """Return whether a tensor lies in memory as channels_last and not also as torch's default."""
    import torch

    return not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def image_from_pixels(pixels_BHW3: torch.Tensor) -> torch.Tensor:
    """Return (B, 3, H, W) float32 in [-1, 1] for (B, H, W, 3) uint8; the memory layout stays that of the pixels."""
    # A product, not a quotient: x / 127.5 rounds differently, and stored results depend on every bit.
    return pixels_BHW3.permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1)
