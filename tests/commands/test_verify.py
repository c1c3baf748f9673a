import shutil

import pytest

from collagan_dist.data.shards.manifest import read_manifest
from tests.data.packed import damage_sample, stored


def test_verify_says_what_it_checked(collagan, shards):
    counts = f"{shards.folder}: undamaged (48 train, 6 valid, 6 test samples; checked "
    quick = f"{counts}sizes and indexes; --deep checks every byte)\n"
    assert collagan("verify", shards.folder)[:2] == (0, quick)
    assert collagan("verify", shards.folder, "--deep")[:2] == (0, f"{counts}every file's hash and every sample)\n")


def test_a_damaged_shard_is_named(collagan, shards, tmp_path):
    copy = read_manifest(shutil.copytree(shards.folder, tmp_path / "shards"))
    damage_sample(copy, "train", 3)
    assert collagan("verify", copy.folder).code == 0
    result = collagan("verify", copy.folder, "--deep")
    assert result.code == 3 and str(stored(copy, "train", 3)[0]) in result.err


@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_without_repair_a_damaged_index_stays_and_is_an_error(collagan, shards, tmp_path, damage):
    folder = tmp_path / "my shards"
    shutil.copytree(shards.folder, folder)
    index = folder / "train-000000.idx"
    content = index.read_bytes()
    index.unlink()
    if damage == "changed":
        index.write_bytes(content[:-3])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for options in (["--no-repair"], ["--no-repair", "--deep"]):
        result = collagan("verify", folder, *options)
        assert result.code == 3 and f"{index}: is {'missing' if damage == 'missing' else 'damaged'}" in result.err
        assert f"`collagan verify '{folder}'`" in result.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    result = collagan("verify", folder)
    assert result.code == 0 and f"rebuilt {index}" in result.err and index.read_bytes() == content
    assert collagan("verify", folder, "--no-repair").code == 0
