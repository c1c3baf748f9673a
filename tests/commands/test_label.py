def test_labels_and_compares(collagan, trained, copy_of_drawn, tmp_path):
    for name in ("Img/img_celeba/000003.jpg", "Img/img_celeba/000004.jpg"):
        (copy_of_drawn / name).write_bytes(b"damaged")
    out = tmp_path / "maps"
    label = ["label", copy_of_drawn, "--model", trained]
    result = collagan(*label, "--out", out, "--batch", 20)
    assert result.code == 0 and f"{out}: 58 label maps; next: collagan pack celeba --root" in result.out
    assert f"--set labels={out}" in result.out and "2 unusable pictures have no label map" in result.out
    assert "no label map for 000003" in result.out
    assert "58 label maps (58 were there)" in collagan(*label, "--out", out).out
    checked = collagan(*label, "--check")
    assert checked.code == 0 and "58 pictures against" in checked.out and " face " in checked.out
    assert "2 unusable ones were left out" in checked.out
