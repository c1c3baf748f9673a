"""Adopt WebDataset tars that exist: a manifest and an index beside them; no byte of a tar is written.

Tars are read by processes of this machine, each once. Then splits and keys are decided over all of them, and the
manifest is written last. The same command continues after an interruption.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from collagan_dist import files, structured
from collagan_dist.data.packing.adopt_tar import TarJob, TarResult, adopt_tar, load_result, read_lines
from collagan_dist.data.packing.pack import processes
from collagan_dist.data.packing.tar_list import SplitBy, TarList, absolute, splits_of_tars
from collagan_dist.data.readers.folder import split_by_hash
from collagan_dist.data.readers.picture import MAX_BAD, check_bad_count
from collagan_dist.data.shards.manifest import (
    ADOPTED,
    MAX_BYTES,
    READOPT,
    Manifest,
    Shard,
    read_manifest,
    write_manifest,
)
from collagan_dist.data.shards.quick_check import index_problem, local_tar_problem, quick_check
from collagan_dist.data.shards.remote import RemoteFolder
from collagan_dist.data.shards.sample_index import SampleLine, encode_line, encode_samples, is_sample_index
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.types import SPLITS
from collagan_dist.units import format_things

logger = logging.getLogger(__name__)

ANNOTATIONS = ("labels", "landmarks")
_WORDS = {"labels": "label map (KEY.seg.png)", "landmarks": "landmarks (in KEY.json)"}
# Reasons for which a sample is unusable that concern an annotation alone.
_REASONS = {"labels": re.compile("(the|no|its) label map"), "landmarks": re.compile("landmark|of its json")}
_ENTRY_BYTES = 400  # of a tar's samples of one split in manifest.json, without names
_NUMBER = re.compile(r"\d+")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Adoption:
    """What to adopt and how. `out` is None beside the tars; `ignore` names annotations that are left out."""

    tars: TarList
    out: Path | None = None
    split_by: SplitBy = "auto"
    ignore: tuple[str, ...] = ()
    max_bad: float = MAX_BAD

    @property
    def folder(self) -> Path:
        """Return where the manifest goes. Raises ConfigError for tars behind a URL without `out`."""
        if self.out is not None:
            if not str(self.tars.folder).isprintable():
                raise ConfigError(
                    f"{self.tars.folder}: no manifest holds such a path; rename the folder, or leave --out out"
                )
            return absolute(self.out)
        if isinstance(self.tars.folder, RemoteFolder):
            raise ConfigError(
                f"{self.tars.folder}: nothing is written there; give a folder for the manifest (--out DIR)"
            )
        return self.tars.folder


@dataclass
class Adopted:
    """A data set that was adopted. `counts` are those of its tars together; None where it had been adopted before."""

    manifest: Manifest
    counts: Counter[str] | None = None


def adopt(adoption: Adoption, workers: int = 0, progress: Progress = lambda done, total: None) -> Adopted:
    """Write manifest, indexes and quarantine.jsonl of tars.

    Indexes that were lost or damaged since are made again, if they come out as the manifest says.

    Raises DataError for tars that are damaged, names that leave splits unclear, or more unusable samples than `max_bad` and
    MAX_BAD_COUNT; ConfigError for a folder that cannot be used. What was read stays, so the same command continues.
    """
    out, named = adoption.folder, splits_of_tars(adoption.tars, adoption.split_by)
    _check_count(adoption.tars, 1 if named else len(SPLITS))
    with files.command_lock(out, "collagan adopt"):
        recipe: dict[str, Any] = {
            "dataset": ADOPTED, "store": "original", "split_by": "names" if named else "hash", "ignore": list(adoption.ignore),
            "tars": hashlib.sha256("\n".join(adoption.tars.names).encode()).hexdigest(),
        }  # fmt: skip
        found = _adopted_before(adoption, recipe)
        if found is not None and _is_whole(found):
            return Adopted(found)
        (out / ".adopting").mkdir(exist_ok=True)
        jobs = [TarJob(str(adoption.tars.folder), name, str(out), adoption.ignore) for name in adoption.tars.names]
        _check_folders(jobs)
        results = _read_all(jobs, workers, progress)
        if found is not None:
            _check_same_tars(found, jobs, results)
        writing = _Writing(adoption, named, list(zip(jobs, results, strict=True)), found)
        splits = writing.write_indexes()
        mean = max(-(-sum(s.samples for s in shards) // len(shards)) for shards in splits.values())
        # Beside its tars, a data set may be moved with them.
        elsewhere = adoption.tars.folder if adoption.tars.folder != out else None
        recipe |= {"samples_per_shard": mean, **({"hash_of": "identity"} if writing.by_identity else {})}
        recipe |= {"all_train": True} if writing.all_train else {}
        if found is None:
            write_manifest(Manifest(out, ADOPTED, recipe, splits, writing.quarantined, elsewhere=elsewhere))
        shutil.rmtree(out / ".adopting")
        return Adopted(read_manifest(out), writing.counts)


def _check_count(tars: TarList, splits: int) -> None:
    """Raise ConfigError for more tars than a manifest can list, before they are read."""
    need = splits * sum(_ENTRY_BYTES + 2 * len(json.dumps(name)) for name in tars.names)
    if need > MAX_BYTES:
        most = len(tars.names) * MAX_BYTES // need
        raise ConfigError(
            f"{tars.folder}: {len(tars.names)} tars are more than a manifest can list; adopt {most} of them, or make fewer, larger tars"
        )


def _check_folders(jobs: Sequence[TarJob]) -> None:
    """Raise ConfigError for a folder that takes no index, before a tar is read."""
    for folder in sorted({job.index_path.parent for job in jobs}):
        files.check_writable(folder)


def _adopted_before(adoption: Adoption, recipe: dict[str, Any]) -> Manifest | None:
    """Return the manifest of the same tars, adopted in the same way. Raises DataError for another one."""
    out = adoption.folder
    if not (out / "manifest.json").exists():
        return None
    try:
        found = read_manifest(out)
    except DataError as error:
        raise DataError(
            f"{error}; remove it, or if it is of another program, give another folder for ours (--out DIR)"
        ) from None
    if not found.is_adopted:
        raise DataError(
            f"{out}: holds shards that `collagan pack` made; train on them as they are, or give another --out"
        )
    same = all(found.recipe.get(key) == value for key, value in recipe.items())
    if not same or found.tars != adoption.tars.folder:
        raise DataError(f"{out}: was adopted from other tars, or by other options; to adopt it anew, {READOPT}")
    return found


def _is_whole(found: Manifest) -> bool:
    """Return whether all indexes are there. Raises DataError for tars of other sizes than those that were adopted."""
    lost = [problem for shard in found if (problem := index_problem(found, shard)) is not None]
    if not lost or any(local_tar_problem(found, shard) for shard in found):
        quick_check(found)
        return True
    logger.info(
        f"{len(lost)} of {len(list(found))} indexes are missing or damaged; all tars are read to make them again"
    )
    return False


def _check_same_tars(found: Manifest, jobs: Sequence[TarJob], results: Sequence[TarResult]) -> None:
    """Raise DataError unless these are the tars of a manifest, by their hashes."""
    expected = {shard.name: shard.sha256 for shard in found}
    names = [j.name for j, r in zip(jobs, results, strict=True) if expected.get(j.name, r.sha256) != r.sha256]
    if names:
        many = format_things(len(names), "such tar")
        raise DataError(
            f"{found.tars / names[0]}: was changed after it was adopted ({many}); to adopt them as they are now, {READOPT}"
        )


def _read_all(jobs: Sequence[TarJob], workers: int, progress: Progress) -> list[TarResult]:
    """Return the results of all tars, in their order. Raises DataError naming every tar that cannot be used."""
    results = {job.name: result for job in jobs if (result := load_result(job)) is not None}
    progress(len(results), len(jobs))
    for job, result in processes(workers, adopt_tar)([job for job in jobs if job.name not in results]):
        results[job.name] = result
        progress(len(results), len(jobs))
    if problems := [result.problem for job in jobs if (result := results[job.name]).problem]:
        others = ["the other tars can be adopted without these: name them"] if len(problems) < len(jobs) else []
        raise DataError("\n".join(problems + others))
    return [results[job.name] for job in jobs]


class _Writing:
    """Decides over all tars what belongs to which split, and writes the indexes: all, or those that a manifest lists and are lost."""

    def __init__(
        self,
        adoption: Adoption,
        named: dict[str, str] | None,
        read: Sequence[tuple[TarJob, TarResult]],
        found: Manifest | None,
    ) -> None:
        self.adoption, self.named, self.read, self.found = adoption, named, read, found
        self.listed = {shard.index_name: shard for shard in found or ()}
        self.counts = sum((Counter(result.counts) for _, result in read), Counter[str]())
        # A person is in one split. Of a data set that was adopted before this was so, indexes come out as they were.
        self._hash_identity = found is None or found.recipe.get("hash_of") == "identity"
        digests = array("Q")
        missing: Counter[tuple[tuple[str, ...], str]] = Counter()
        for job, result in read:
            for line in read_lines(job, result):
                digests.append(_digest(line.key))
                self._count(line)
                missing[_missing(line, ANNOTATIONS), self._split_drawn(line)] += 1
        keys, times = np.unique(np.array(digests), return_counts=True)
        self._repeated = keys[times > 1]
        self.by_identity = named is None and self._hash_identity and self.counts["identity"] > 0
        # What some samples have, training needs of all.
        self.partial = [name for name in ANNOTATIONS if 0 < self.counts[name] < len(digests)]
        usable = Counter[str]()
        for (names, split), count in missing.items():
            usable[split] += count if not set(names) & set(self.partial) else 0
        # A hash leaves none to train on where there are few samples or persons. Adopted data sets stay as they are.
        self.all_train = named is None and (not usable["train"] if found is None else "all_train" in found.recipe)
        self.samples = len(digests) + sum(len(result.quarantine) for _, result in read)
        self.quarantined = self.samples - usable.total()

    def write_indexes(self) -> dict[str, tuple[Shard, ...]]:
        """Write quarantine.jsonl and the indexes; return the shards of each split. Raises DataError."""
        self._check_sides()
        if self.found is None:  # what a manifest lists was allowed once
            check_bad_count(self.quarantined, self.samples, self.adoption.max_bad, self._write_quarantine(), "samples")
        made: dict[str, list[Shard]] = {split: [] for split in SPLITS}
        for job, result in self.read:
            lines = self._by_split(job, result)
            for split, shards in made.items():
                shards += self._write_index(job, result, split, lines.get(split, []))
        splits = {split: tuple(shards) for split, shards in made.items() if shards}
        self._check_same(splits, self.found.splits if self.found is not None else splits)
        if self.found is not None:
            self._write_quarantine()
        if not splits:
            # Few enough are allowed, even if they are all.
            why = self._write_quarantine() or "there are no files KEY.jpg, KEY.jpeg or KEY.png in these tars"
            raise DataError(f"{self.adoption.tars.folder}: not one usable sample; {why}")
        return splits

    def _check_same(self, made: object, listed: object) -> None:
        if made != listed:  # runs know their data by the hash of its manifest
            raise DataError(
                f"{self.adoption.folder}: indexes made again differ from those that the manifest lists; to adopt anew, {READOPT}"
            )

    def _count(self, line: SampleLine) -> None:
        self.counts["identity"] += line.identity is not None
        self.counts["labels"] += line.labels is not None
        self.counts["landmarks"] += line.landmarks is not None
        self.counts["crossed"] += line.landmarks is not None and line.landmarks[0][0] > line.landmarks[1][0]

    def _check_sides(self) -> None:
        counts = self.counts
        # More than half: a head that is upside down crosses its eyes, too.
        if counts["crossed"] > counts["landmarks"] / 2:
            raise DataError(
                f"{self.adoption.tars.folder}: in {counts['crossed']} of {counts['landmarks']} samples the left eye lies right of the "
                "right eye; left is left in the picture: exchange the points of left and right, or leave them out (--ignore landmarks)"
            )

    def _split_drawn(self, line: SampleLine) -> str:
        hashed = line.identity if self._hash_identity and line.identity is not None else line.key
        return SPLITS[split_by_hash(hashed)]

    def _by_split(self, job: TarJob, result: TarResult) -> dict[str, list[bytes]]:
        """Return the lines of the usable samples of a tar by split."""
        found: dict[str, list[bytes]] = {}
        for line in read_lines(job, result):
            if _missing(line, self.partial):
                continue
            split = self.named[job.name] if self.named else "train" if self.all_train else self._split_drawn(line)
            # Tars that each count from 0 share keys, and random choices for a sample depend on its key.
            if self._is_repeated(line.key):
                line = line.model_copy(update={"key": f"{job.stem}/{line.key}"})
            found.setdefault(split, []).append(encode_line(line))
        return found

    def _write_index(self, job: TarJob, result: TarResult, split: str, lines: list[bytes]) -> list[Shard]:
        """Write the index of a tar's samples of one split where it is not; without any, remove that of an earlier adoption."""
        name = f"{job.stem}.{split}.samples"
        path = self.adoption.folder / name
        if path.exists() and not is_sample_index(files.read_regular(path, structured.MAX_BYTES, 64)):
            raise DataError(
                f"{path}: is a file of another program where an index goes; give another folder (--out DIR)"
            )
        if not lines:
            if self.found is None:
                path.unlink(missing_ok=True)
            return []
        content = encode_samples(lines)
        sha256 = hashlib.sha256(content).hexdigest()
        shard = Shard(job.name, result.bytes, result.sha256, sha256, len(lines), name, len(content))
        if self.found is not None:
            self._check_same(shard, self.listed.get(name))
            if index_problem(self.found, shard) is None:
                return [shard]
        files.write_bytes(path, content)
        return [shard]

    def _is_repeated(self, key: str) -> bool:
        digest = np.uint64(_digest(key))
        at = np.searchsorted(self._repeated, digest)
        return bool(at < len(self._repeated) and self._repeated[at] == digest)

    @property
    def _bad_list(self) -> Path:
        return self.adoption.folder / "quarantine.jsonl"

    def _write_quarantine(self) -> str:
        """Write quarantine.jsonl, one line at a time: they may be most of a billion. Return what to look at, with the most frequent reason."""
        reasons: Counter[str] = Counter()
        first: dict[str, str] = {}
        with files.atomic_write(self._bad_list) as file:
            for tar, key, reason in self._unusable():
                file.write(json.dumps({"tar": tar, "key": key, "reason": reason}).encode() + b"\n")
                common = _NUMBER.sub("N", reason)
                reasons[common] += 1
                first.setdefault(common, f"{tar}: {key}: {reason}")
        if not reasons:
            return ""
        common, count = reasons.most_common(1)[0]
        options = " or ".join(f"--ignore {name}" for name, words in _REASONS.items() if words.search(common))
        mend = f" ({options} adopts all samples without)" if options else ""
        return f"{count} like {first[common]}{mend}; all are in {self._bad_list}"

    def _unusable(self) -> Iterator[tuple[str, str, str]]:
        """Yield tar, key and reason of samples that cannot be used, or that lack what others have, by tar and key."""
        for job, result in self.read:
            found = list(result.quarantine)
            for line in read_lines(job, result) if self.partial else ():
                if lacks := [_WORDS[name] for name in _missing(line, self.partial)]:
                    found.append((line.key, f"has no {' and no '.join(lacks)}, which others of these tars have"))
            yield from ((job.name, *entry) for entry in sorted(found))


def _missing(line: SampleLine, names: Iterable[str]) -> tuple[str, ...]:
    """Return which of these annotations a sample lacks."""
    return tuple(name for name in names if getattr(line, name) is None)


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
