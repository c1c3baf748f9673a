"""`collagan complete`."""

from __future__ import annotations

from pathlib import Path

from tests.commands.conftest import Collagan


def test_completes_a_folder(collagan: Collagan, trained: Path, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        picture = drawn / f"Img/img_celeba/{number:06d}.jpg"
        (tmp_path / f"in/{number}.jpg").write_bytes(picture.read_bytes())
    result = collagan("complete", trained, tmp_path / "in", "--out", tmp_path / "out", "--hole", "O1")
    assert result.code == 0 and "2 picture(s) completed" in result.out
    assert (tmp_path / "out/1.completed.png").is_file() and (tmp_path / "out/2.labels.png").is_file()


def test_usage_errors(collagan: Collagan, trained: Path, tmp_path: Path) -> None:
    assert collagan("complete", trained, tmp_path).code == 2  # no --out
    result = collagan("complete", trained, tmp_path / "none.jpg", "--out", tmp_path / "out")
    assert result.code in (2, 3) and "none.jpg" in result.err and not (tmp_path / "out").exists()
