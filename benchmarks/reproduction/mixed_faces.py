"""Photographs among drawn faces: a folder in CelebA's layout for trainings that are scored on photographs alone.

    COLLAGAN_FACES=PHOTOS python benchmarks/reproduction/mixed_faces.py DRAWN OUT [--drawn 1600] [--repeat 16]

The photographs' training part stands in OUT `--repeat` times, each time to be augmented anew, beside the first drawn faces; its
validation and test parts, of other people, are OUT's test split. There is no validation split.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LABELS, PICTURES = "Label/img_celeba", "Img/img_celeba"
LANDMARKS, PARTITION = "Anno/list_landmarks_celeba.txt", "Eval/list_eval_partition.txt"

Face = tuple[Path, str, str]  # its folder, its file name, its five points as they stand in the list


def faces(root: Path, parts: str) -> Iterator[Face]:
    """Those of the given parts ("0" training, "1" validation, "2" test)."""
    points = dict(line.split(maxsplit=1) for line in (root / LANDMARKS).read_text().splitlines()[2:])
    for line in (root / PARTITION).read_text().splitlines():
        name, part = line.split()
        if part in parts:
            yield root, name, points[name]


def write(out: Path, train: list[Face], test: list[Face]) -> None:
    for folder in (LABELS, PICTURES, "Anno", "Eval"):
        (out / folder).mkdir(parents=True)
    points, partition = [], []
    for number, (root, name, five) in enumerate([*train, *test], 1):
        new = f"{number:06d}"
        shutil.copyfile(root / PICTURES / name, out / PICTURES / f"{new}.jpg")
        shutil.copyfile((root / LABELS / name).with_suffix(".png"), out / LABELS / f"{new}.png")
        points.append(f"{new}.jpg {five}")
        partition.append(f"{new}.jpg {0 if number <= len(train) else 2}")
    columns = (
        "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    )
    (out / LANDMARKS).write_text("\n".join([str(len(points)), columns, *points]) + "\n")
    (out / PARTITION).write_text("\n".join(partition) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawn", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--drawn", dest="count", type=int, default=1600)
    parser.add_argument("--repeat", type=int, default=16)
    args = parser.parse_args()
    photographs = Path(os.environ["COLLAGAN_FACES"])
    drawn = list(faces(args.drawn, "0"))[: args.count]
    real = list(faces(photographs, "0"))
    write(args.out, drawn + real * args.repeat, list(faces(photographs, "12")))
    print(f"{args.out}: {len(drawn)} drawn faces, {len(real)} photographs {args.repeat} times")


if __name__ == "__main__":
    main()
