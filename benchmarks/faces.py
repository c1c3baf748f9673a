"""The pictures that benchmarks run on: photographs where COLLAGAN_FACES names CelebA's layout, else drawn faces of the same size."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import cv2

from collagan_dist.faces.layout import draw_faces

WIDTH, HEIGHT = 178, 218  # of CelebA's aligned pictures, about 10 kB each

POINTS = ("lefteye", "righteye", "nose", "leftmouth", "rightmouth")


def aligned_set(count: int) -> tuple[Path, str]:
    """(root, what it holds): `count` pictures of 178x218 with label maps in the layout of CelebA's aligned set.

    There are at most some hundred different ones, each copied under many names.
    """
    root = Path(tempfile.mkdtemp(prefix="benchmark-"))
    photographs = os.environ.get("COLLAGAN_FACES")
    source, name = (Path(photographs), "img_align_celeba") if photographs else (_drawn(root / "drawn"), "img_celeba")
    rows = dict(
        line.split(maxsplit=1)
        for line in (source / "Anno" / f"list_landmarks{'_align' if photographs else ''}_celeba.txt")
        .read_text()
        .splitlines()[2:]
    )
    for folder in ("Img/img_align_celeba", "Label/img_align_celeba", "Anno", "Eval"):
        (root / folder).mkdir(parents=True)
    names = sorted(rows)
    lines, splits = [f"{count}", " ".join(f"{part}_{axis}" for part in POINTS for axis in "xy")], []
    for number in range(count):
        old, new = names[number % len(names)], f"{number + 1:06d}"
        shutil.copy(source / "Img" / name / old, root / f"Img/img_align_celeba/{new}.jpg")
        shutil.copy(source / "Label" / name / f"{Path(old).stem}.png", root / f"Label/img_align_celeba/{new}.png")
        lines.append(f"{new}.jpg {rows[old]}")
        splits.append(f"{new}.jpg 0")
    (root / "Anno/list_landmarks_align_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "Eval/list_eval_partition.txt").write_text("\n".join(splits) + "\n")
    return root, "photographs of CelebA's aligned size" if photographs else "drawn faces of CelebA's aligned size"


def _drawn(root: Path) -> Path:
    """Drawn faces scaled to the size of CelebA's aligned pictures."""
    draw_faces(root, count=100, seed=1, workers=1)
    lines = (root / "Anno/list_landmarks_celeba.txt").read_text().splitlines()
    for number, line in enumerate(lines[2:], 2):
        name, *values = line.split()
        picture, labels = root / "Img/img_celeba" / name, root / "Label/img_celeba" / f"{Path(name).stem}.png"
        image = cv2.imread(str(picture))
        scale = (WIDTH / image.shape[1], HEIGHT / image.shape[0])
        cv2.imwrite(
            str(picture),
            cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA),
            [cv2.IMWRITE_JPEG_QUALITY, 92],
        )
        small = cv2.resize(
            cv2.imread(str(labels), cv2.IMREAD_UNCHANGED), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST
        )
        cv2.imwrite(str(labels), small)
        moved = [min(round(int(v) * scale[k % 2]), (WIDTH, HEIGHT)[k % 2] - 1) for k, v in enumerate(values)]
        lines[number] = " ".join([name, *map(str, moved)])
    (root / "Anno/list_landmarks_celeba.txt").write_text("\n".join(lines) + "\n")
    return root
