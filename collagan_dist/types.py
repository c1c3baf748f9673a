"""The words every part shares: label classes, landmarks, samples, batches, the world.

Shape legend, used as suffix of tensor names everywhere: B samples of a batch, C label classes, K landmarks,
H and W rows and columns. Images are RGB; on the device they are floats in [-1, 1]. Pixel coordinates are (x, y) with
integers at pixel centres. "Left" is left in the picture. `hole` is 1 inside the occluded region, so it is the
complement of the paper's M.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch

# Label maps: the classes of the parsing network of Table 2, by their 8-bit value.
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
# Table 2 scores these; background and hair are learned but not in the table.
SCORED_CLASSES: Final = CLASSES[1:10]
SPLITS: Final = ("train", "valid", "test")
LANDMARKS: Final = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")

# A mirrored picture swaps left and right: CLASS_FLIP[c] is what class c becomes, LANDMARK_FLIP likewise for points.
CLASS_FLIP: Final = (0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10)
LANDMARK_FLIP: Final = (1, 0, 2, 4, 3)

# Kinds of holes, by name (data/loading/holes.py makes them).
HoleKind = Literal["block", "pattern", "noise", "none"]
# Table 1's positions, at test only: left eye, right eye, upper, left, right and lower face.
TestHole = Literal["block", "pattern", "noise", "none", "O1", "O2", "O3", "O4", "O5", "O6"]
POSITIONS: Final = ("O1", "O2", "O3", "O4", "O5", "O6")

# The face square is FACE_SQUARE times the larger extent of the landmarks; shards keep a MARGIN around it, which holds
# every augmented view of it.
FACE_SQUARE: Final = 3.2
MARGIN: Final = 1.3

# The same square where only a label map is known, from the box around its classes 1 to 9 (the face without hair): side
# as a share of the box's width, centre above the box's lower edge (the chin) as a share of that width. Measured beside
# FACE_SQUARE's on 400 drawn faces and on 102 photographs (in the wild, aligned), as medians: side 1.65 (1.60, 1.57),
# centre 0.58 (0.56, 0.56), sideways 0.00. So the two squares differ by at most 3 % in side and 1 % of it in place. The
# box's upper edge and larger extent are of no use: a fringe moves them (side / extent 1.47 on drawn faces, 1.17 on
# photographs).
LABEL_SQUARE: Final = 1.62
LABEL_CHIN: Final = 0.57


MAX_KEY_BYTES: Final = 92  # bytes of a sample's name: `KEY.seg.png` must fit the 100 of a USTAR name


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside a zip or tar archive, which is never unpacked (data/readers/archives.py)."""

    archive: str
    name: str

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


File = str | ArchiveMember


@dataclass(frozen=True)
class PartMasks:
    """A label map published as one mask a part of the face: the files PREFIX_<part>.png (data/readers/part_masks.py)."""

    prefix: str


@dataclass(frozen=True)
class Sample:
    """One annotated picture as a reader of `data/readers` hands it to packing.

    `landmarks` are five (x, y) pairs in pixels of the picture; `labels` says where its label map is, or what it is made
    of. Nothing of either is opened before packing.
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
    """Who this process is among the processes of a run. `launcher` is ray, torchrun, srun or alone."""

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
    """One batch on the device, ready for the networks.

    image_B3HW   the unoccluded picture y_i, [-1, 1]
    input_B3HW   the picture with its hole filled, x of eq. 1
    hole_B1HW    1 inside the occluded region
    label_BHW    uint8 classes, None when the set has none
    points_BK2   landmarks (x, y) in pixels of image_B3HW, None when the set has none
    ids_B        sample numbers within the split; epoch_B their epochs
    keys_B2      int32 keys of each sample's randomness, see `counter`
    """

    image_B3HW: torch.Tensor
    input_B3HW: torch.Tensor
    hole_B1HW: torch.Tensor
    label_BHW: torch.Tensor | None
    points_BK2: torch.Tensor | None
    ids_B: np.ndarray
    epoch_B: np.ndarray
    keys_B2: torch.Tensor

    def split(self, parts: int) -> list[Batch]:
        """The batch in equal parts; `parts` divides B."""
        size = len(self.ids_B) // parts
        fields = {name: value for name, value in vars(self).items() if value is not None}
        return [replace(self, **{n: v[i * size : (i + 1) * size] for n, v in fields.items()}) for i in range(parts)]


def as_float32(x: torch.Tensor) -> torch.Tensor:
    """In float32; float64 stays: outputs, logits and losses are never narrower."""
    import torch

    return x.to(torch.promote_types(x.dtype, torch.float32))


def image_from_pixels(pixels_BHW3: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) float32 in [-1, 1] of (B, H, W, 3) uint8 pixels; the memory layout stays that of the pixels."""
    return pixels_BHW3.permute(0, 3, 1, 2).float().mul_(1 / 127.5).sub_(1)
