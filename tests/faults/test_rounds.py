"""Fault rows with damage at random places: few rounds here, many in `make test-full`, which records what they found."""

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.picture import UnusablePicture, read_picture
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import DataError
from tests.data.packed import contents, recipe
from tests.faults.damages import DAMAGES, blank, cut, damage, drop, rounds


@rounds(1, 20)
def test_row_1_damaged_pictures(copy_of_drawn, tmp_path, rounds, record):
    """Every picture that no longer decodes is quarantined by name, every other one packed; the shards verify."""
    pictures = copy_of_drawn / "Img/img_celeba"
    whole = contents(pictures)
    told: Counter[str] = Counter()
    for number in range(rounds):
        at = random.Random(number)
        for name in at.sample(sorted(whole), 8):
            damage(pictures / name, at.choice((cut, blank, drop)), at)
        unusable = {name.split(".")[0] for name in whole if not decodes(pictures / name)}
        manifest = pack(recipe(copy_of_drawn, tmp_path / f"{number}"), workers=1)
        assert sum(manifest.samples(split) for split in manifest.splits) == 60 - len(unusable)
        lines = (tmp_path / f"{number}/quarantine.jsonl").read_text().splitlines()
        assert len(lines) == manifest.quarantined == len(unusable)
        assert all(any(f'"{key}"' in line for line in lines) for key in unusable)
        verify(manifest.folder, deep=True)
        told.update(quarantined=len(unusable), damaged=8)
        for name, content in whole.items():
            (pictures / name).write_bytes(content)
    record("1", rounds=rounds, **told)


def decodes(path: Path) -> bool:
    """By the full-size strict decode."""
    try:
        return read_picture(str(path)).pixels_HW3 is not None
    except UnusablePicture:
        return False


@rounds(10, 400)
def test_row_9_damaged_tars(shards, tmp_path, rounds, record):
    """Another size is found quickly, any other byte by --deep; both name the shard."""
    copy = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    found: Counter[str] = Counter()
    for number in range(rounds):
        at = random.Random(number)
        shard = at.choice(list(shards))
        damage(copy / shard.name, DAMAGES[number % len(DAMAGES)], at)
        another_size = (copy / shard.name).stat().st_size != shard.bytes
        with pytest.raises(DataError, match=f"{shard.name}: " + ("has" if another_size else "its sha256")):
            verify(copy, deep=not another_size)
        found["by size" if another_size else "by hash"] += 1
        shutil.copy(shards.folder / shard.name, copy)
    verify(copy, deep=True)
    record("9", rounds=rounds, **found)


@rounds(10, 400)
def test_row_10_damaged_indexes(shards, tmp_path, rounds, record):
    """Each is rebuilt from its tar, to the byte; where the tar is damaged too, it is refused and left alone."""
    copy = Path(shutil.copytree(shards.folder, tmp_path / "copy"))
    found: Counter[str] = Counter()
    for number in range(rounds):
        at = random.Random(number)
        shard = at.choice(list(shards))
        index, tar = copy / shard.index_name, copy / shard.name
        if number % 6 == 5:
            index.unlink()
        else:
            damage(index, DAMAGES[number % 6], at)
        if number % 4 == 3:
            spoiled = bytearray(tar.read_bytes())
            spoiled[512 * at.randrange(3)] ^= 1  # the first name, the first bytes of the picture
            tar.write_bytes(spoiled)
        before = index.read_bytes() if index.exists() else b""
        try:
            verify(copy)
            found["rebuilt"] += 1
            assert index.read_bytes() == (shards.folder / shard.index_name).read_bytes()
        except DataError as error:
            found["refused"] += 1
            assert number % 4 == 3 and shard.name in str(error)
            assert (index.read_bytes() if index.exists() else b"") == before
        shutil.copy(shards.folder / shard.name, copy)
        shutil.copy(shards.folder / shard.index_name, copy)
    assert found["rebuilt"] >= rounds * 3 // 4 and not list(copy.glob(".*.partial"))
    record("10", rounds=rounds, **found)
