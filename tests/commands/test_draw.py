def test_draws_faces_and_names_the_next_command(collagan, tmp_path):
    out = tmp_path / "my faces"
    result = collagan("draw", out, "--count", 2, "--workers", 1)
    assert result.code == 0 and len(list((out / "Img/img_celeba").iterdir())) == 2
    assert f"next: collagan pack drawn --root '{out}'" in result.out
