"""`collagan label`: write label maps for photographs in CelebA's layout with a face parser.

A resumed run writes the same bytes as an uninterrupted one. A network may round differently in a batch of another size or
order. So every picture has a fixed slot of a fixed batch, and pictures that have a map already leave theirs black.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from collagan_dist import __version__, files, structured
from collagan_dist.data.readers.celeba import ALIGNED, IN_THE_WILD, open_pictures
from collagan_dist.data.readers.picture import MAX_BAD, UnusablePicture, check_bad_count, encode_label_map
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.registry import READERS
from collagan_dist.data.readers.samples import Samples
from collagan_dist.distributed import devices
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.face_parser import FaceParser
from collagan_dist.inference.face_views import FaceViews, compose_labels, crop_views
from collagan_dist.types import Sample, World

PHOTO_FOLDERS = {"celeba": IN_THE_WILD, "celeba_aligned": ALIGNED}
# ORIGIN_FILE names the parser that wrote a folder of maps, UNLABELLED_FILE the pictures that have none.
ORIGIN_FILE, UNLABELLED_FILE = ".label.json", "unlabelled.jsonl"
# Batches whose views are cut before the network, and batches whose maps are written after it, in threads.
_BATCHES_AHEAD = 2

Progress = Callable[[int, int], None]  # (pictures done, pictures in all)
T = TypeVar("T")


@dataclass(frozen=True)
class LabelResult:
    """Numbers of maps that were written and that existed before, and (key, reason) of pictures without a map."""

    written: int
    existing: int
    unusable: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PhotoSet:
    """The pictures of a data set, and the folder of their label maps."""

    dataset: str
    samples: Samples
    maps: Path

    def path(self, sample: Sample) -> Path:
        return self.maps / f"{sample.key}.png"


def find_photographs(root: Path, dataset: str | None = None, out: Path | None = None) -> PhotoSet:
    """Find the pictures in CelebA's layout below `root`: those of `dataset`, or of the data set that is there.

    Pictures in the wild take precedence over aligned ones. Raises DataError.
    """
    dataset = dataset or next(
        (d for d, folder in PHOTO_FOLDERS.items() if open_pictures(root, folder) is not None), "celeba"
    )
    # Readers take a recipe, whose `out` matters to packing alone.
    samples = READERS[dataset](Recipe.model_validate({"dataset": dataset, "root": str(root), "out": ""}))
    seen: dict[str, str] = {}
    for sample in samples:
        if seen.setdefault(sample.key, sample.source) != sample.source:
            raise DataError(f"{root}: {seen[sample.key]} and {sample.source} would share one label map; rename one")
    return PhotoSet(dataset, samples, out or root / "Label" / Path(PHOTO_FOLDERS[dataset]).name)


def write_label_maps(
    parser: FaceParser,
    photos: PhotoSet,
    batch: int,
    progress: Progress = lambda done, total: None,
    max_bad: float = MAX_BAD,
) -> LabelResult:
    """Write the label maps that are missing. The same call resumes an interrupted one.

    Raises DataError when the folder holds maps of another origin, or when none or too few pictures could be labelled.
    """
    _claim_folder(photos, parser)
    # One listing instead of a stat per picture: CelebA has 200,000, often on network storage.
    existing = {path.name for path in photos.maps.iterdir()}
    wanted = [s if photos.path(s).name not in existing else None for s in photos.samples]
    done_before = wanted.count(None)

    def write(sample: Sample, labels: np.ndarray) -> None:
        files.write_bytes(photos.path(sample), encode_label_map(labels))

    written, unusable = 0, []
    progress(done_before, len(wanted))
    for sample, result in predict_label_maps(parser, wanted, batch, write):
        if isinstance(result, UnusablePicture):
            unusable.append((sample.key, str(result)))
        else:
            written += 1
        progress(done_before + written + len(unusable), len(wanted))
    _write_unlabelled(photos, unusable)
    # All pictures unusable is an error of the data set, some are not.
    if not written + done_before:
        key, reason = unusable[0]
        raise DataError(f"{photos.maps}: none of {len(unusable)} pictures could be labelled; {key}: {reason}")
    check_bad_count(len(unusable), len(wanted), max_bad, f"see {photos.maps / UNLABELLED_FILE}")
    return LabelResult(written, done_before, tuple(unusable))


def predict_label_maps(
    parser: FaceParser, wanted: Sequence[Sample | None], batch: int, finish: Callable[[Sample, np.ndarray], T]
) -> Iterator[tuple[Sample, T | UnusablePicture]]:
    """Yield (sample, `finish(sample, label map)`) for every wanted sample, in order; None is a slot to leave black.

    Threads read and cut pictures and call `finish`, while the network runs in this one.
    """
    batches = (wanted[i : i + batch] for i in range(0, len(wanted), batch))
    todo = (samples for samples in batches if any(s is not None for s in samples))
    with ThreadPoolExecutor(devices.thread_count(World()), "label") as pool:

        def cut(samples: Sequence[Sample | None]) -> list[tuple[Sample | None, Future[FaceViews] | None]]:
            return [
                (s, pool.submit(crop_views, s, parser.views, parser.size) if s is not None else None) for s in samples
            ]

        cutting = deque(cut(samples) for samples in islice(todo, _BATCHES_AHEAD))
        finishing: deque[list[tuple[Sample, Future[T] | UnusablePicture]]] = deque()
        try:
            while cutting:
                faces = [(s, _face_or_error(f)) for s, f in cutting.popleft()]
                cutting.extend(cut(samples) for samples in islice(todo, 1))
                finishing.append(_parse_batch(parser, faces, batch, pool, finish))
                # At the end all remaining batches are taken; before, as many stay as the network may run ahead.
                while len(finishing) > (_BATCHES_AHEAD if cutting else 0):
                    yield from (
                        (s, r if isinstance(r, UnusablePicture) else r.result()) for s, r in finishing.popleft()
                    )
        except BaseException:
            # What waits is dropped; maps that a thread is writing are completed.
            pool.shutdown(cancel_futures=True)
            raise


def _face_or_error(future: Future[FaceViews] | None) -> FaceViews | UnusablePicture | None:
    try:
        return future.result() if future is not None else None
    except UnusablePicture as error:
        return error


def _parse_batch(
    parser: FaceParser,
    faces: list[tuple[Sample | None, FaceViews | UnusablePicture | None]],
    batch: int,
    pool: ThreadPoolExecutor,
    finish: Callable[[Sample, np.ndarray], T],
) -> list[tuple[Sample, Future[T] | UnusablePicture]]:
    """Run one batch through the parser and submit `finish` for each of its faces."""
    some = next((face for _, face in faces if isinstance(face, FaceViews)), None)
    scores: np.ndarray | None = None
    if some is not None:
        pixels = np.zeros((batch, *some.views_VHW3.shape), np.uint8)
        for slot, (_, face) in enumerate(faces):
            if isinstance(face, FaceViews):
                pixels[slot] = face.views_VHW3
        # A face's views are neighbours in the batch axis.
        flat = parser(pixels.reshape(-1, *pixels.shape[2:]))
        scores = flat.reshape(batch, -1, *flat.shape[1:])

    def finish_face(sample: Sample, face: FaceViews, slot: int) -> T:
        assert scores is not None
        return finish(sample, compose_labels(scores[slot], face.shape, face.windows))

    return [
        (sample, pool.submit(finish_face, sample, face, slot) if isinstance(face, FaceViews) else face)
        for slot, (sample, face) in enumerate(faces)
        if sample is not None and face is not None
    ]


class _Origin(structured.Record):
    """What is read of ORIGIN_FILE."""

    model: str
    sha256: str
    settings: dict[str, Any]
    dataset: str


def _claim_folder(photos: PhotoSet, parser: FaceParser) -> None:
    """Create the folder for this parser's maps, and delete partial files of a killed run.

    Raises ConfigError when it cannot be created, DataError when it holds maps of another origin.
    """
    maps, note = photos.maps, photos.maps / ORIGIN_FILE
    identity = parser.identity
    origin = {"sha256": identity.sha256, "settings": identity.settings, "dataset": photos.dataset}
    try:
        maps.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{maps}: cannot be made ({error.strerror}); give another --out") from None
    mend = f"remove {maps} or give another --out"
    found = structured.read(note, _Origin, DataError, mend) if note.exists() else None
    if found is None and next(maps.glob("*.png"), None) is not None:
        raise DataError(
            f"{maps}: holds label maps that `collagan label` did not make; give another --out, or compare with them by --check"
        )
    if found is not None and found.model_dump(exclude={"model"}) != origin:
        raise DataError(
            f"{maps}: holds label maps of another model or class map ({found.model}, sha256 {found.sha256[:12]}); "
            f"this is {identity.name}, {identity.sha256[:12]}; give another --out, or remove that folder"
        )
    # Only now: partial files in a folder of another origin may belong to a program that is running.
    for path in maps.glob(".*.partial"):
        path.unlink(missing_ok=True)
    # Before the first map, so that no folder holds maps of unknown origin.
    if found is None:
        files.write_json(note, {"model": identity.name, **origin, "version": __version__})


def _write_unlabelled(photos: PhotoSet, unusable: list[tuple[str, str]]) -> None:
    """Write a line for every picture without a map, as quarantine.jsonl of `collagan pack` has it."""
    path = photos.maps / UNLABELLED_FILE
    if unusable:
        lines = [json.dumps({"key": key, "reason": reason}) for key, reason in unusable]
        files.write_text(path, "".join(f"{line}\n" for line in lines))
    else:
        path.unlink(missing_ok=True)
