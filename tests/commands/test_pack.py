from tests.conftest import ROOT


def test_parts_are_merged_and_packed_once(collagan, drawn, tmp_path):
    out = tmp_path / "packed"
    pack = ["pack", ROOT / "shards/drawn.yaml", "--root", drawn, "--out", out, "--workers", 1, "--set", "store_size=44"]
    pack += ["--set", "samples_per_shard=25"]
    assert "part 0/2 done" in collagan(*pack, "--part", "0/2").out and not (out / "manifest.json").exists()
    assert collagan(*pack, "--part", "1/2").code == 0
    merged = collagan(*pack, "--merge")
    assert merged.code == 0 and "train: 48 samples in 2 shards" in merged.out
    assert f"next: collagan train demo --data {out}" in merged.out
    again = collagan(*pack)
    assert again.code == 0 and "was packed already" in again.out and "next:" not in again.out
    assert "is packed and merged already" in collagan(*pack, "--part", "1/2").out
