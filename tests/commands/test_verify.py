def test_verify_says_what_it_checked(collagan, shards):
    counts = f"{shards.folder}: sound (48 train, 6 valid, 6 test samples; checked "
    quick = f"{counts}sizes and indexes; --deep checks every byte)\n"
    assert collagan("verify", shards.folder)[:2] == (0, quick)
    assert collagan("verify", shards.folder, "--deep")[:2] == (0, f"{counts}every file's hash and every sample)\n")
