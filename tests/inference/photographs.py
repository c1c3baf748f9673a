"""Painted photographs in CelebA's layout whose classes are known by their colours."""

from pathlib import Path

import cv2
import numpy as np

from collagan_dist.types import CLASSES
from tests.commands.conftest import call
from tests.inference.onnx_networks import COLOURS

COLUMNS = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
HEIGHT, WIDTH, BLOCK = 150, 190, 7
# The larger extent of the landmarks; the side of face and margin square (3.2 and 3.2 x 1.3 times it), in whole pixels.
FACE, MARGIN = (24, 77), (32, 133)


def pattern(seed: int) -> np.ndarray:
    """(HEIGHT, WIDTH) random classes in blocks."""
    shape = -(-HEIGHT // BLOCK), -(-WIDTH // BLOCK)
    blocks = np.random.default_rng(seed).integers(0, len(CLASSES), shape, dtype=np.uint8)
    return np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))[:HEIGHT, :WIDTH]


def data_set(root: Path, extent: int, centres: list[tuple[int, int]]) -> list[np.ndarray]:
    """Painted photographs in CelebA's layout, landmarks of one extent around each centre; the classes they show."""
    shown = [pattern(i) for i in range(len(centres))]
    for folder in ("Img/img_celeba", "Anno", "Eval"):
        (root / folder).mkdir(parents=True)
    rows = []
    for number, (labels, (x, y)) in enumerate(zip(shown, centres, strict=True)):
        cv2.imwrite(str(root / f"Img/img_celeba/{number}.png"), COLOURS[labels][:, :, ::-1])
        e = extent // 2
        points = (x - e, y - 4, x + e, y - 4, x, y, x - e + 3, y + 4, x + e - 3, y + 4)
        rows.append(f"{number}.png " + " ".join(map(str, points)))
    (root / "Anno/list_landmarks_celeba.txt").write_text("\n".join([str(len(rows)), COLUMNS, *rows]) + "\n")
    (root / "Eval/list_eval_partition.txt").write_text("".join(f"{i}.png 0\n" for i in range(len(rows))))
    return shown


def within(side: int, x: int, y: int) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the square of an odd side around (x, y)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (abs(rows - y) <= side // 2) & (abs(columns - x) <= side // 2)


def contents(folder: Path) -> dict[str, bytes]:
    """The label maps of a folder."""
    return {p.name: p.read_bytes() for p in folder.glob("*.png")}


def label_photographs(root: Path, network: Path, *options: str) -> list[np.ndarray]:
    """Run `collagan label` and return its maps in the order of the pictures."""
    out = network.with_suffix(".maps")
    assert call("label", root, "--model", network, "--out", out, *options) == 0
    paths = sorted(out.glob("*.png"), key=lambda p: int(p.stem))
    return [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in paths]
