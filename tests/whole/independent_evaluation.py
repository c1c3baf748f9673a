"""Tables 1 to 3 of one model from pictures on disk, by NumPy and Pillow alone: nothing of the package is imported.

FOLDER/<hole>/<number>/ holds truth.png, completed.png, blended.png (RGB), labels.png, found_labels.png (classes), heatmaps.npy (K, H, W)
and points.txt (x, y of each landmark).
"""

from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

# Of GFC's order: what the paper's columns hide by its numbers, and the hole of the same place.
COLUMNS = {"O1": "O4", "O2": "O5", "O3": "O3", "O4": "O1", "O5": "O2", "O6": "O6"}
CLASSES = ("face", "left_eyebrow", "right_eyebrow", "left_eye", "right_eye", "nose", "upper_lip", "teeth", "lower_lip")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
WINDOW = 7


def table1(folder: Path) -> dict[str, dict[str, float]]:
    """SSIM in percent and PSNR in dB of each column, over the samples' means."""
    found = {}
    for column, hole in COLUMNS.items():
        cell = found.setdefault(column, {})
        for suffix, name in (("", "completed"), ("_blended", "blended")):
            pairs = [(picture(at / "truth.png"), picture(at / f"{name}.png")) for at in samples(folder, hole)]
            cell[f"ssim{suffix}"] = 100 * float(np.mean([ssim(*pair) for pair in pairs]))
            cell[f"psnr{suffix}"] = float(np.mean([psnr(*pair) for pair in pairs]))
    return found


def table2(folder: Path) -> dict[str, float]:
    """Dice in percent of each class, pooled over the samples, and the mean of those that occur."""
    pairs = [(picture(at / "labels.png"), picture(at / "found_labels.png")) for at in samples(folder, "block")]
    truth, seen = (np.stack(side) for side in zip(*pairs, strict=True))
    found = {}
    for number, name in enumerate(CLASSES, start=1):
        size = (truth == number).sum() + (seen == number).sum()
        if size:
            found[name] = 200 * float(((truth == number) & (seen == number)).sum() / size)
    return found | {"average": float(np.mean(list(found.values())))}


def table3(folder: Path) -> dict[str, float]:
    """Mean distance in pixels of each landmark, and the mean of those."""
    errors = []
    for at in samples(folder, "block"):
        maps, points = np.load(at / "heatmaps.npy"), np.loadtxt(at / "points.txt")
        errors.append([np.hypot(*(read_out(one) - point)) for one, point in zip(maps, points, strict=True)])
    found = dict(zip(POINTS, np.mean(errors, axis=0).tolist(), strict=True))
    return found | {"average": float(np.mean(list(found.values())))}


def samples(folder: Path, hole: str) -> list[Path]:
    return sorted((folder / hole).iterdir())


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float64)


def psnr(truth: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((truth - other) ** 2)
    return 100.0 if error == 0 else min(100.0, float(20 * np.log10(255) - 10 * np.log10(error)))


def ssim(truth: np.ndarray, other: np.ndarray) -> float:
    """Wang's SSIM with a uniform window and the sample covariance, over all windows inside the picture, mean of the channels."""
    one, two = (sliding_window_view(side, (WINDOW, WINDOW), axis=(0, 1)) for side in (truth, other))
    mean1, mean2 = one.mean((-1, -2)), two.mean((-1, -2))
    deviation1, deviation2 = one - mean1[..., None, None], two - mean2[..., None, None]
    freedom = WINDOW**2 - 1
    var1, var2 = ((side**2).sum((-1, -2)) / freedom for side in (deviation1, deviation2))
    cov = (deviation1 * deviation2).sum((-1, -2)) / freedom
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * mean1 * mean2 + c1) * (2 * cov + c2) / ((mean1**2 + mean2**2 + c1) * (var1 + var2 + c2))))


def read_out(heatmap: np.ndarray) -> np.ndarray:
    """(x, y) of the largest pixel, moved a quarter towards its larger neighbours; a neighbour outside is the pixel itself."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    bottom, right = heatmap.shape[0] - 1, heatmap.shape[1] - 1
    dx = heatmap[y, min(x + 1, right)] - heatmap[y, max(x - 1, 0)]
    dy = heatmap[min(y + 1, bottom), x] - heatmap[max(y - 1, 0), x]
    return np.array([x + np.sign(dx) / 4, y + np.sign(dy) / 4])
