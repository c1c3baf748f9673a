"""Faces in CelebA's layout written anew in the layouts of other data sets."""

import shutil
import tarfile
import zipfile
from pathlib import Path

import cv2
import numpy as np

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.types import LANDMARKS

# Parts of CelebAMask-HQ by our classes; brows and eyes are named by the person's side, contrary to the picture's.
PART_OF_CLASS = {1: "skin", 2: "r_brow", 3: "l_brow", 4: "r_eye", 5: "l_eye", 6: "nose", 7: "u_lip", 8: "mouth", 9: "l_lip", 10: "hair"}  # fmt: skip
COLUMNS = ["file", *(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")]
FIRST_OF_SPLIT = {"0": 1, "1": 162771, "2": 182638}


def rows_of(root: Path, annotation: str = "list_landmarks_celeba") -> dict[str, list[str]]:
    lines = (root / f"Anno/{annotation}.txt").read_text().splitlines()[2:]
    return {line.split()[0]: line.split()[1:] for line in lines}


def splits_of(root: Path) -> dict[str, str]:
    return dict(line.split() for line in (root / "Eval/list_eval_partition.txt").read_text().splitlines())


def write_celebamask_hq(root: Path, out: Path, shrink: int = 1) -> list[str]:
    """The layout of CelebAMask-HQ with part masks of 1/shrink of the picture's size; CelebA's names in order of idx."""
    pictures, masks = out / "CelebA-HQ-img", out / "CelebAMask-HQ-mask-anno"
    for folder in (pictures, masks / "0"):
        folder.mkdir(parents=True)
    splits, taken = splits_of(root), dict(FIRST_OF_SPLIT)
    table = ["idx       orig_idx   orig_file"]
    names = sorted(splits)
    for number, name in enumerate(names):
        shutil.copy(root / "Img/img_celeba" / name, pictures / f"{number}.jpg")
        labels = cv2.imread(str(root / f"Label/img_celeba/{Path(name).stem}.png"), cv2.IMREAD_UNCHANGED)
        labels = labels[shrink // 2 :: shrink, shrink // 2 :: shrink]
        for value, part in PART_OF_CLASS.items():
            if (mask := labels == value).any():
                # What lies below other parts is part of the published masks too.
                mask = (labels >= 1) & (labels <= 9) if part == "skin" else mask
                path = str(masks / "0" / f"{number:05d}_{part}.png")
                assert cv2.imwrite(path, np.repeat(mask[..., None] * np.uint8(255), 3 if number % 2 else 1, -1))
        original = taken[splits[name]]
        taken[splits[name]] += 1
        table.append(f"{number}     {original - 1}     {original:06d}.jpg")
    (out / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(table) + "\n")
    return names


def write_folder(root: Path, out: Path, kind: str = "celeba", columns: tuple[str, ...] = ("split", "identity")) -> None:
    """A folder of pictures with labels/ and faces.csv."""
    shutil.copytree(root / f"Img/img_{kind}", out)
    out.chmod(0o755)  # the originals may be read-only
    if (root / f"Label/img_{kind}").is_dir():
        shutil.copytree(root / f"Label/img_{kind}", out / "labels")
    extra = {"split": {n: ("train", "valid", "test")[int(s)] for n, s in splits_of(root).items()}, "identity": {}}
    identities = root / "Anno/identity_CelebA.txt"
    if identities.exists():
        extra["identity"] = dict(line.split() for line in identities.read_text().splitlines())
    lines = [",".join([*COLUMNS, *columns])]
    for name, values in rows_of(root, f"list_landmarks_{kind}").items():
        lines.append(",".join([name, *values, *(extra[c].get(name, "") for c in columns)]))
    (out / "faces.csv").write_text("\n".join(lines) + "\n")


def archived(folder: Path, kind: str, top: bool) -> Path:
    """The files of a folder as FOLDER.zip or FOLDER.tar, in a top folder or not; the folder is gone then."""
    path = folder.with_name(f"{folder.name}.{kind}")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    named = [(p, str(p.relative_to(folder.parent if top else folder))) for p in files]
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in named:
                archive.write(file, name)
    else:
        with tarfile.open(path, "w") as archive:
            for file, name in named:
                archive.add(file, name)
    shutil.rmtree(folder)
    return path


def samples_of(manifest: Manifest) -> dict[str, dict]:
    """Every sample as plain webdataset reads it, by its source, with its split."""
    import webdataset

    return {
        sample["json"].decode().split('"source":"')[1].split('"')[0]: {**sample, "split": split}
        for split, shards in manifest.splits.items()
        for shard in shards
        for sample in webdataset.WebDataset(str(manifest.folder / shard.name), shardshuffle=False)
    }
