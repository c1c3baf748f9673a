"""Adopt one tar: read it once, check every sample, and note where it lies and what training needs to know of it.

The result lies in OUT/.adopting until all tars are read. A later start trusts it if tar and options are the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collagan_dist import files, structured
from collagan_dist.data.face_square import Square
from collagan_dist.data.packing.encode_sample import original_meta, square_and_labels
from collagan_dist.data.packing.shard_job import library_versions
from collagan_dist.data.packing.tar_stream import HashedStream, TarMember, read_samples
from collagan_dist.data.readers.colour_profile import is_srgb
from collagan_dist.data.readers.picture import UnusablePicture, read_picture
from collagan_dist.data.readers.picture_format import SIGNATURE_BYTES, picture_format
from collagan_dist.data.readers.sample_json import SampleJson, read_sample_json
from collagan_dist.data.shards.label_png import decode_label_map
from collagan_dist.data.shards.remote import RemoteFolder, open_location
from collagan_dist.data.shards.sample_check import check_picture, parse_meta
from collagan_dist.data.shards.sample_index import (
    MAX_LINE_BYTES,
    SampleIndex,
    SampleLine,
    encode_line,
    encode_samples,
)
from collagan_dist.data.shards.wire_format import Member, index_line, join_index
from collagan_dist.errors import DataError
from collagan_dist.types import FileInMemory, Sample
from collagan_dist.units import format_bytes

PICTURES = ("jpg", "jpeg", "png")
LABELS, JSON = "seg.png", "json"
_WANTED = frozenset((*PICTURES, LABELS, JSON))
_MAX_KEY = 2000  # letters
_MOST_NAMED = 5  # extensions in a message
_LOG_SECONDS = 60.0  # between lines in a log

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TarJob:
    """One tar below a folder or URL, where its index goes, and what of its samples is left out: labels, landmarks."""

    folder: str
    name: str
    out: str
    ignore: tuple[str, ...]

    @property
    def stem(self) -> str:
        return self.name[:-4] if self.name.lower().endswith(".tar") else self.name

    def plan(self) -> str:
        """Return a hash of all that the result depends on; of a tar's content its size and, in a folder, its time, as they are now.

        Raises OSError or DataError for a tar that cannot be reached.
        """
        place = open_location(self.folder)
        stamp: list[int | None]
        if isinstance(place, RemoteFolder):
            stamp = [place.size(self.name)]
        else:
            status = (place / self.name).stat()
            stamp = [status.st_size, status.st_mtime_ns]
        return hashlib.sha256(
            json.dumps([library_versions(), self.folder, self.name, self.ignore, stamp]).encode()
        ).hexdigest()

    @property
    def index_path(self) -> Path:
        """The path of DALI's index."""
        return Path(self.out, f"{self.stem}.idx")

    def result_path(self, suffix: str) -> Path:
        return Path(self.out, ".adopting", hashlib.sha256(self.name.encode()).hexdigest()[:32] + suffix)


class TarResult(structured.Record):
    """An adopted tar. `counts` are of extensions that are not used, and of pictures of which something is to be said.

    `problem` is what is wrong with the tar as a whole; then there is nothing else.
    """

    plan: str
    problem: str | None = None
    bytes: structured.Count = 0
    sha256: str = ""
    samples: structured.Count = 0
    samples_sha256: str = ""
    quarantine: tuple[tuple[str, str], ...] = ()
    counts: dict[str, structured.Count] = {}


def adopt_tar(job: TarJob) -> TarResult:
    """Read a tar and write its result. A tar that is damaged or cannot be read is a result with a problem, and not written."""
    place, plan = open_location(job.folder), ""
    try:
        plan = job.plan()
        if isinstance(place, RemoteFolder):
            found = place.read_through(job.name, lambda stream: _Reading(job, HashedStream(stream)))
        else:
            with files.open_regular(place / job.name) as stream:
                found = _Reading(job, HashedStream(stream))
        is_same = job.plan() == plan
    except (DataError, OSError) as error:
        text = str(error) if isinstance(error, DataError) else f"{place / job.name}: cannot be read ({error.strerror})"
        return TarResult(plan=plan, problem=text)
    # A later start would trust what was found in an older tar.
    if not is_same:
        text = f"{place / job.name}: was changed while it was read; run the same command when it no longer changes"
        return TarResult(plan=plan, problem=text)
    return found.write(plan)


def load_result(job: TarJob) -> TarResult | None:
    """Return the result of a tar that was read before and is unchanged; None if it must be read."""
    result = structured.find(job.result_path(".json"), TarResult)
    with suppress(OSError, DataError):  # reading the tar says what is wrong
        if result is not None and result.plan == job.plan():
            same = files.sha256(job.result_path(".samples")) == result.samples_sha256
            return result if same else None
    return None


def read_lines(job: TarJob, result: TarResult) -> Iterable[SampleLine]:
    """Yield what was found of each usable sample of a tar, in its order."""
    index = SampleIndex(job.result_path(".samples").read_bytes(), result.bytes)
    return (index.line(row) for row in range(len(index)))


class _Reading:
    """What one pass over a tar has found."""

    def __init__(self, job: TarJob, stream: HashedStream) -> None:
        self.job, self.stream = job, stream
        self.lines: dict[str, bytes] = {}
        self.quarantine: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.of_macos = False  # whether there are files that only its tar makes
        # As text, which takes a tenth of the memory: a tar may hold a million samples. None: a name that DALI's index cannot hold.
        self.rows: list[bytes] | None = []
        place, last = str(open_location(job.folder) / job.name), time.monotonic()
        for name, members in read_samples(stream, place, _WANTED):
            self._add(name.removeprefix("./"), members)
            # The bar counts tars, and one may take hours. On a terminal lines of several processes would break the bar.
            if (now := time.monotonic()) - last >= _LOG_SECONDS and not sys.stderr.isatty():
                last = now
                logger.info(f"{place}: {format_bytes(stream.count)} read, {len(self.lines)} usable samples")

    def _add(self, key: str, members: list[TarMember]) -> None:
        # Fields of DALI's index are separated by blanks.
        if any(" " in member.name or "\n" in member.name for member in members):
            self.rows = None
        if self.rows is not None:
            self.rows.append(index_line([Member(m.name[len(m.key) + 1 :], m.offset, m.size, m.name) for m in members]))
        self.counts.update(f".{m.extension}" for m in members if m.extension not in _WANTED)
        self.of_macos |= key.endswith("/")  # d/._000.jpg is file _000.jpg of a sample d/
        if key in self.lines or key in self.quarantine:
            # webdataset makes a sample of what follows each other.
            self.lines.pop(key, None)
            mend = "`tar --sort=name` puts files of one sample together"
            if self.of_macos:
                mend = "files ._NAME of macOS lie between them; COPYFILE_DISABLE=1 makes its tar leave these out"
            self.quarantine[key] = f"its files do not follow each other in the tar, or it is there twice; {mend}"
            return
        try:
            line = _check_sample(key, members, self.job.ignore, self.counts)
            self.lines[key] = encode_line(line)
            _check_line(self.lines[key])
        except (UnusablePicture, DataError, ValueError) as error:
            self.lines.pop(key, None)
            self.quarantine[key[:_MAX_KEY]] = str(error)

    def write(self, plan: str) -> TarResult:
        """Write DALI's index where there is none, and the result."""
        job, content = self.job, encode_samples(list(self.lines.values()))
        if self.rows is not None:
            _write_index(job.index_path, join_index(self.rows), self.counts)
        result = TarResult(
            plan=plan, bytes=self.stream.count, sha256=self.stream.sha256(), samples=len(self.lines),
            samples_sha256=hashlib.sha256(content).hexdigest(), quarantine=tuple(self.quarantine.items()), counts=dict(self.counts),
        )  # fmt: skip
        files.write_bytes(job.result_path(".samples"), content)
        files.write_json(job.result_path(".json"), result.model_dump())
        return result


def _write_index(path: Path, content: bytes, counts: Counter[str]) -> None:
    """Write DALI's index where there is none; count one that is there and says otherwise, which may be of an older tar."""
    if not path.exists():
        files.write_bytes(path, content)
    elif files.read_regular(path, 0, len(content) + 1) != content:
        counts["other index"] += 1


def _check_sample(key: str, members: list[TarMember], ignore: tuple[str, ...], counts: Counter[str]) -> SampleLine:
    """Return the line of a sample. Raises UnusablePicture, ValueError or DataError, which say why there is none."""
    if len(key) > _MAX_KEY:
        raise ValueError(f"its name has more than {_MAX_KEY} letters")
    by_extension: dict[str, TarMember] = {}
    for member in members:
        if member.extension in _WANTED and member.problem is not None:
            raise ValueError(member.problem)
        if by_extension.setdefault(member.extension, member) is not member:
            raise ValueError(f"has two files .{member.extension}, which webdataset refuses")
    picture = _picture_of(by_extension)
    said = read_sample_json(by_extension[JSON].content, ignore) if JSON in by_extension else SampleJson()
    labels = by_extension.get(LABELS) if "labels" not in ignore else None
    return _describe(key, picture, labels, said, counts)


def _picture_of(by_extension: dict[str, TarMember]) -> TarMember:
    pictures = [by_extension[extension] for extension in PICTURES if extension in by_extension]
    if not pictures:
        found = ", ".join(sorted(by_extension)[:_MOST_NAMED]) + ", ..." * (len(by_extension) > _MOST_NAMED)
        dots = "; the key ends at the first dot of a file's name: rename the files so that they have no other" * any(
            extension.endswith(tuple(f".{picture}" for picture in PICTURES)) for extension in by_extension
        )
        raise ValueError(f"has no picture ({', '.join(PICTURES)}), only {found}{dots}")
    if len(pictures) > 1:
        raise ValueError(
            f"has several pictures ({', '.join(one.extension for one in pictures)}); a label map is called KEY.{LABELS}"
        )
    return pictures[0]


def _describe(
    key: str, member: TarMember, labels: TarMember | None, said: SampleJson, counts: Counter[str]
) -> SampleLine:
    """Decode picture and label map, and return the line with the face square."""
    file = FileInMemory(member.name, member.content)
    # As stored: readers of tars do not turn pictures, and training decodes these very bytes.
    picture = read_picture(file)
    if (form := picture_format(member.content[:SIGNATURE_BYTES])) not in ("JPEG", "PNG"):
        raise ValueError(f"is {form}, neither JPEG nor PNG; convert it")
    picture.check()
    counts["turned"] += read_picture(file, upright=True).orientation > 1
    counts["profile"] += picture.profile is not None and not is_srgb(picture.profile)
    if said.landmarks is not None and said.size not in (None, (picture.width, picture.height)):
        raise ValueError(
            f"its json says {'{}x{}'.format(*said.size or ())}, the picture is {picture.width}x{picture.height}: its landmarks mean another size"
        )
    check_picture(member.content, picture.width, picture.height)
    if labels is not None:
        decode_label_map(labels.content, picture.width, picture.height)
    map_file = FileInMemory(labels.name, labels.content) if labels is not None else None
    sample = Sample(key, member.name, file, "", said.landmarks, map_file, said.identity)
    square, _ = square_and_labels(sample, picture, Square(*said.square) if said.square is not None else None)
    meta = original_meta(sample, picture, square)
    return structured.validate(
        {**meta, "key": key, "identity": said.identity, "picture": (member.offset, member.size, member.name),
         "labels": (labels.offset, labels.size, labels.name) if labels is not None else None},
        SampleLine, "its annotation",
    )  # fmt: skip


def _check_line(line: bytes) -> None:
    """Raise ValueError unless training could use this line."""
    if len(line) > MAX_LINE_BYTES:
        raise ValueError("its names and annotations are too long")
    parse_meta(line)
