import hashlib
import json
import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from collagan_dist.data.shards.manifest import Manifest, Shard, read_manifest, write_manifest
from collagan_dist.data.shards.sample_check import WrongSample, parse_meta
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from collagan_dist.data.shards.wire_format import ShardWriter
from collagan_dist.errors import DataError
from tests.faults.damages import rounds
from tests.faults.mutations import mutated_json
from tests.training.one_rank import batches, setup

FACE = [[30.0, 35.0], [58.0, 35.0], [44.0, 48.0], [33.0, 60.0], [55.0, 60.0]]
SOUND = {"landmarks": FACE, "width": 88, "height": 88, "source": "1.jpg"}


def moved(dx: float, dy: float, scale: float = 1.0) -> list[list[float]]:
    return [[x * scale + dx, y * scale + dy] for x, y in FACE]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "far away": ({"landmarks": moved(1e6, 0)}, "outside of 5 times"),
    "beside": ({"landmarks": moved(0, 150)}, "beside the picture"),
    "negative": ({"landmarks": moved(-150, 0)}, "beside the picture"),
    "as large as a house": ({"landmarks": moved(0, 0, 1e4)}, "outside of 5 times"),
    "all one point": ({"landmarks": [[44.0, 44.0]] * 5}, "the same point"),
    "two are one point": ({"landmarks": [FACE[0], FACE[0], *FACE[2:]]}, "the same point"),
    "smaller than a pixel": ({"landmarks": [[44 + x / 1e4, 44 + y / 1e4] for x, y in FACE]}, "a side of"),
    "four": ({"landmarks": FACE[:4]}, "landmarks: needs at least 5 items, has 4"),
    "NaN": ({"landmarks": [[float("nan"), 35.0], *FACE[1:]]}, "landmarks.0.0: needs a "),
    "infinity": ({"landmarks": [[float("inf"), 35.0], *FACE[1:]]}, "landmarks.0.0: needs a "),
    "a huge integer": ({"landmarks": [[10**400, 35], *FACE[1:]]}, "landmarks.0.0: needs a "),
    "words": ({"landmarks": [["30", "35"], *FACE[1:]]}, "landmarks.0.0: needs a number"),
    "true": ({"landmarks": [[True, 35], *FACE[1:]]}, "landmarks.0.0: needs a number"),
    "no list": ({"landmarks": 7}, "landmarks: needs a list"),
    "a size that is no number": ({"width": "88"}, "width: needs an integer"),
    "a size of true": ({"width": True, "height": True}, "width: needs an integer"),
    "a bomb": ({"width": 1 << 40, "height": 88}, "width: needs at most"),
    "a square far away": ({"landmarks": None, "square": [1e6, 44.0, 68.0]}, "outside of 5 times"),
    "a square of nothing": ({"landmarks": None, "square": [44.0, 44.0, 0.0]}, "a side of"),
    "a square of two numbers": (
        {"landmarks": None, "square": [44.0, 44.0]},
        "square: needs at least 3 items, has 2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_annotations_that_no_view_can_be_cut_by(case):
    changes, said = WRONG[case]
    with pytest.raises(WrongSample, match=said):
        parse_meta(json.dumps(SOUND | changes).encode())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"[" * 50_000, b'{"a":' * 9_000, b'{"a":"' + b"x" * 70_000 + b'"}', b"\xff"]
)
def test_what_is_no_json_of_a_sample(content):
    with pytest.raises(WrongSample):
        parse_meta(content)


def test_what_is_sound():
    for changes in (
        {},
        {"landmarks": None},
        {"landmarks": None, "square": [44.0, 20.5, 68.0]},
        {"landmarks": moved(-20, 20)},
    ):
        known = {name: value for name, value in (SOUND | changes).items() if name != "source"}
        assert parse_meta(json.dumps(SOUND | changes).encode())[0].model_dump(exclude_unset=True) == known


def set_of(folder: Path, shards: Manifest, samples: list[dict[str, bytes]]) -> Manifest:
    """A data set whose train split is one shard of these samples, with the hashes that it has."""
    folder.mkdir()
    with (folder / "train-000000.tar").open("wb") as file:
        writer = ShardWriter(file)
        for number, members in enumerate(samples):
            writer.add(f"{number:06d}", members)
        writer.finish()
    (folder / "train-000000.idx").write_bytes(writer.index())
    tar, index = (folder / f"train-000000.{end}" for end in ("tar", "idx"))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (tar, index)]
    shard = Shard(tar.name, tar.stat().st_size, *hashes, len(samples))
    write_manifest(Manifest(folder, "drawn", shards.recipe, {"train": (shard,)}, 0))
    return read_manifest(folder)


def members(shards: Manifest, number: int = 0) -> dict[str, bytes]:
    sample = SplitReader(shards, "train").read(number)
    assert sample.labels is not None
    meta = {"landmarks": sample.landmarks, "width": sample.width, "height": sample.height, "source": "1.jpg"}
    return {"jpg": sample.jpg.tobytes(), "seg.png": sample.labels.tobytes(), "json": json.dumps(meta).encode()}


def png(labels: np.ndarray) -> bytes:
    return cv2.imencode(".png", labels)[1].tobytes()


def refused_by_both(manifest: Manifest) -> set[str]:
    """The keys of samples that training cannot use, once `verify --deep` was seen to name the same."""
    part = setup(manifest, data__max_damaged=1 << 20)
    loader = part.loader("train", part.view(training=False), 4)
    count = manifest.samples("train")
    list(
        loader.batches(
            iter([(np.arange(i, min(i + 4, count)), np.zeros(4, np.int64)[: count - i]) for i in range(0, count, 4)])
        )
    )
    try:
        verify(manifest.folder, deep=True)
        named = set()
    except DataError as error:
        named = {line.split(": sample ")[1][:6] for line in str(error).splitlines() if ": sample " in line}
    assert named == {f"{one.number:06d}" for one in loader.damaged}
    return named


def test_training_and_verify_agree_on_what_is_sound(shards, tmp_path):
    good = members(shards)
    meta = json.loads(good["json"])
    labels = cv2.imdecode(np.frombuffer(good["seg.png"], np.uint8), cv2.IMREAD_UNCHANGED)
    high = labels.copy()
    high[40, 40] = 11
    bad = [
        *({**good, "json": json.dumps(meta | changes).encode()} for changes, _ in WRONG.values()),
        {**good, "seg.png": png(high)},
        {**good, "seg.png": png(labels[:-1])},
        {**good, "seg.png": png(labels.astype(np.uint16))},
        {**good, "seg.png": png(np.dstack([labels] * 3))},
        {**good, "seg.png": good["seg.png"][:-20]},
        {**good, "json": json.dumps(meta | {"width": 89}).encode()},
        {**good, "jpg": good["jpg"][:100]},
    ]
    samples = [good, good, *(one for pair in zip(bad, [good] * len(bad), strict=True) for one in pair)]
    found = refused_by_both(set_of(tmp_path / "set", shards, samples))
    assert found == {f"{2 + 2 * number:06d}" for number in range(len(bad))}


def test_training_names_it_and_goes_on(shards, tmp_path):
    """Landmarks far away gave DALI a region of negative size, and ended training by a segmentation fault."""
    good = members(shards)
    far = {**good, "json": json.dumps(json.loads(good["json"]) | {"landmarks": moved(1e6, 1e6)}).encode()}
    manifest = set_of(
        tmp_path / "set", shards, [far if number == 5 else members(shards, number) for number in range(24)]
    )
    shown = np.concatenate([batch.ids_B for batch in batches(manifest, 0, 1, range(4))])
    assert 5 not in shown and list(shown).count(6) == 4  # twice in its own place, twice for the other


@rounds(300, 10_000)
def test_mutated_jsons_of_samples(shards, tmp_path, rounds):
    """Training and verify refuse the same ones, whatever they are, and nothing ends the process."""
    good = members(shards)
    jsons = [mutated_json(good["json"], random.Random(number))[:60_000] for number in range(rounds)]
    # A sample without landmarks is sound, but not of use to these tasks.
    samples = [{**good, "json": content} for content in jsons if b'"landmarks": null' not in content]
    found = refused_by_both(set_of(tmp_path / "set", shards, [good, *samples]))
    assert 0.5 * rounds < len(found) < rounds
