"""PBT's exploit on disk: a checkpoint of another run takes the place of a run's own."""

from __future__ import annotations

from pathlib import Path

from collagan_dist.sweep.checkpoint_copy import adopt_checkpoint, undo_interrupted_adoptions


def test_the_donors_checkpoint_replaces_the_own(tmp_path: Path) -> None:
    """By hard links, also after a kill in the middle of copying; nothing else changes."""
    for name in ("mine", "theirs"):
        (tmp_path / name / "checkpoints/step-00000008").mkdir(parents=True)
        (tmp_path / name / "checkpoints/step-00000008/weights").write_text(name)
    (tmp_path / "mine/checkpoints/.step-00000008.adopted").mkdir()
    for _ in range(2):
        adopt_checkpoint(tmp_path / "mine", tmp_path / "theirs", 8)
        assert (tmp_path / "mine/checkpoints/step-00000008/weights").read_text() == "theirs"
    (only,) = (tmp_path / "mine/checkpoints").iterdir()
    assert (only / "weights").stat().st_nlink == 2 and (tmp_path / "theirs/checkpoints/step-00000008/weights").exists()


def test_an_adoption_killed_between_its_renames_is_undone(tmp_path: Path) -> None:
    """Otherwise the member would resume from an older checkpoint, or from none."""
    aside = tmp_path / "trials/t000/checkpoints/.step-00000008.own"
    aside.mkdir(parents=True)
    (aside / "weights").write_text("mine")
    undo_interrupted_adoptions(tmp_path)
    assert (tmp_path / "trials/t000/checkpoints/step-00000008/weights").read_text() == "mine"
