import shutil

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
