"""`collagan complete`: complete photographs of any source with a trained generator."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collagan_dist import files, shell
from collagan_dist.data.readers.archives import FolderOrArchive
from collagan_dist.data.readers.picture import MAX_BAD, check_bad_count
from collagan_dist.data.readers.picture_format import FORMATS, split_masks, split_suffix
from collagan_dist.errors import DataError
from collagan_dist.inference.completion_job import CompletionJob
from collagan_dist.inference.evaluate import check_blends
from collagan_dist.inference.face_location import FaceWindow, GivenFaces, lost_detail
from collagan_dist.inference.face_model import load_face_model
from collagan_dist.inference.hole_source import parse_hole
from collagan_dist.runs.model_folder import read_config

logger = logging.getLogger(__name__)

# Endings of the files that `complete` writes; a folder that holds some is not their source.
_RESULT_ENDINGS = (".completed.png", ".labels.png", ".sheet.png")

Progress = Callable[[int, int], None]  # (pictures done, pictures in all)


@dataclass(frozen=True)
class CompleteResult:
    """The sheets of completed pictures in the order of names, and (picture, reason) of those left out."""

    sheets: tuple[Path, ...]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CompleteOptions:
    """How pictures are completed: blending, changed keys of the configuration, the share of unusable pictures, given faces."""

    blend: str = "none"
    sets: Sequence[str] = ()
    max_bad: float = MAX_BAD
    given: GivenFaces = field(default_factory=GivenFaces)


def complete(
    run: Path,
    source: Path,
    out: Path,
    hole: str | None = None,
    options: CompleteOptions | None = None,
    progress: Progress = lambda done, total: None,
) -> CompleteResult:
    """Complete a picture, or all pictures in and below a folder.

    Writes NAME.completed.png, NAME.labels.png, NAME.landmarks.json (those of the model's tasks) and NAME.sheet.png. A picture
    that is unusable is named and left out. Raises ConfigError, and DataError when none or too few are completed.
    """
    options = options or CompleteOptions()
    config = read_config(run, sets=options.sets)
    folder, names = _find_pictures(source)
    check_blends([options.blend], config.model.tasks)
    # Without inpainting a hole would only hide what is to be segmented.
    holes_of = parse_hole(hole or ("block" if "inpainting" in config.model.tasks else "none"))
    model, _ = load_face_model(run, config)
    job = CompletionJob(model, folder, holes_of, out, options.given, options.blend)
    _warn_of_unmatched(options.given, names)
    with files.usable_folder(out):
        out.mkdir(parents=True, exist_ok=True)
    sheets, faces, left_out = [], [], []
    progress(0, len(names))
    for name, result in job.run(names):
        if isinstance(result, DataError):
            if source.is_dir():  # a single picture's is the error of the command
                logger.warning("warning: %s; left out", result)
            left_out.append((str(folder / name), str(result)))
        else:
            for note in filter(None, (face.note for face in result)):
                logger.info("%s: %s", folder / name, note)
            sheets.append(job.path(name, "sheet.png"))
            faces.append(result)
        progress(len(sheets) + len(left_out), len(names))
    if not sheets:
        raise DataError(
            left_out[0][1] + (f" (and so on: none of {len(left_out)} is usable)" if len(left_out) > 1 else "")
        )
    _report_faces(faces, job.model.size)
    check_bad_count(len(left_out), len(names), options.max_bad, "the others are completed")
    return CompleteResult(tuple(sheets), tuple(left_out))


def _warn_of_unmatched(given: GivenFaces, names: Sequence[str]) -> None:
    """Say which landmarks are those of no picture."""
    if unmatched := sorted({*(given.landmarks or {})} - {split_suffix(name)[0] for name in names}):
        logger.warning(
            "warning: landmarks of %d names, such as %r, belong to none of the pictures", len(unmatched), unmatched[0]
        )


def _find_pictures(source: Path) -> tuple[Path, list[str]]:
    """Return a folder, and the names in it of the pictures to complete. Raises DataError where there is none."""
    if not source.is_dir():
        # A pipe or a device is refused when it is read.
        if not source.exists():
            raise DataError(f"{source}: no such picture or folder")
        return source.parent, [source.name]
    names = FolderOrArchive(str(source)).list_pictures()
    results = [name for name in names if name.lower().endswith(_RESULT_ENDINGS)]
    if results:
        logger.info(
            "%s: %d results of an earlier call, such as %s, are not completed", source, len(results), results[0]
        )
    names, masks = split_masks(name for name in names if name not in set(results))
    if masks:
        logger.info(
            "%s: %d masks beside pictures, such as %s, are not completed; --hole %s takes them as holes",
            source, len(masks), masks[0], shell.quote(source),
        )  # fmt: skip
    if not names:
        raise DataError(f"{source}: holds no picture ({', '.join(FORMATS)})")
    # Results are named by the stem, so that a.jpg and a.png would overwrite each other's.
    twice = [stem for stem, count in Counter(split_suffix(name)[0] for name in names).items() if count > 1]
    if twice:
        raise DataError(f"{source}: two pictures are called {twice[0]}; rename one, their results would have one name")
    return source, names


def _report_faces(pictures: Sequence[Sequence[FaceWindow]], size: int) -> None:
    """Say how many faces pictures have and how they were found, and what the model's size cannot give."""
    faces = [face for found in pictures for face in found]
    if len(faces) == 1:
        logger.info("%s", faces[0])
    else:
        counts = Counter(face.found_by for face in faces)
        logger.info("face squares: %s", ", ".join(f"{count} {found_by}" for found_by, count in counts.items()))
    if len(faces) > len(pictures):
        numbers = sorted(Counter(map(len, pictures)).items())
        logger.info("faces a picture: %s", ", ".join(f"{number} in {count}" for number, count in numbers))
    if detail := lost_detail([face.window[2] for face in faces], size):
        logger.info("%s", detail)
