"""WebDataset tars as other programs write them, of samples that are files by extension."""

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import webdataset

from collagan_dist.data.shards.manifest import Manifest

Samples = Mapping[str, Mapping[str, bytes]]


def stored_samples(manifest: Manifest, split: str) -> list[dict[str, dict[str, bytes]]]:
    """The files of a packed split: of each shard by key and extension, in their order."""
    found = []
    for shard in manifest.shards(split):
        samples: dict[str, dict[str, bytes]] = {}
        with tarfile.open(manifest.tars / shard.name) as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                samples.setdefault(key, {})[extension] = tar.extractfile(member).read()
        found.append(samples)
    return found


def write_files(folder: Path, samples: Samples) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for key, members in samples.items():
        for extension, content in members.items():
            path = folder / f"{key}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def by_tar(path: Path, samples: Samples, *options: str, members: Iterable[str] = (".",)) -> None:
    """By tar(1), from files in a folder of their own."""
    folder = path.parent / f".{path.name}.files"
    write_files(folder, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", *options, "-cf", path, "-C", folder, *members], check=True)


def by_webdataset(path: Path, samples: Samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # An open file: `verify` has webdataset refuse names.
    with path.open("wb") as file, webdataset.TarWriter(file) as writer:
        for key, members in samples.items():
            writer.write({"__key__": key, **members})


def by_tarfile(
    path: Path, members: Iterable[tuple[str, bytes | tarfile.TarInfo]], form: int = tarfile.GNU_FORMAT
) -> None:
    """Members in this order; a TarInfo is a member of another kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(content, bytes) else content
            info.name = name
            info.size = len(content) if isinstance(content, bytes) else info.size
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)


def member(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, link
    return info


def quarantine(folder: Path) -> dict[str, str]:
    """The reason of each key in quarantine.jsonl."""
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return {found["key"]: found["reason"] for found in map(json.loads, lines)}
