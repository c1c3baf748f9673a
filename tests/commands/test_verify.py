import shutil


def test_verify_says_what_it_checked(collagan, shards):
    counts = f"{shards.folder}: undamaged (48 train, 6 valid, 6 test samples; checked "
    quick = f"{counts}sizes and indexes; --deep checks every byte)\n"
    assert collagan("verify", shards.folder)[:2] == (0, quick)
    assert collagan("verify", shards.folder, "--deep")[:2] == (0, f"{counts}every file's hash and every sample)\n")


def test_a_damaged_shard_is_named(collagan, shards, tmp_path):
    shutil.copytree(shards.folder, tmp_path / "shards")
    damaged = min((tmp_path / "shards").glob("train-*.tar"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    assert collagan("verify", tmp_path / "shards").code == 0
    result = collagan("verify", tmp_path / "shards", "--deep")
    assert result.code == 3 and str(damaged) in result.err
