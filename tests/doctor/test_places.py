import os
import tempfile
from pathlib import Path

import pytest

from collagan_dist.doctor import places


def test_a_home_that_cannot_be_written(monkeypatch):
    monkeypatch.setenv("HOME", "/proc/no-home")
    (found,) = places.check_home()
    assert (found.state, "data.cache.folder" in found.mend) == ("warning", True)
    assert f"/proc/no-home cannot be written by this user (id {os.geteuid()})" in found.text


def test_a_home_that_can_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [(found.state, found.text) for found in places.check_home()] == [("ok", str(tmp_path))]


@pytest.mark.parametrize(
    ("folder", "least", "said"),
    [
        ("/proc/absent", 0, "/proc/absent cannot be written, which `collagan sweep`"),
        ("/tmp", 1 << 60, "MB free, and `collagan sweep`"),
    ],
)
def test_folders_of_temporary_files_that_do_not_serve(monkeypatch, folder, least, said):
    monkeypatch.setattr(places, "_MIN_TEMPORARY_BYTES", least)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    (found,) = places.check_temporary(Path(folder))
    assert found.state == "warning" and said in found.text and found.mend


def test_no_folder_of_temporary_files(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(
        tempfile, "_get_default_tempdir", lambda: (_ for _ in ()).throw(FileNotFoundError(2, "No usable"))
    )
    (found,) = places.check_temporary()
    assert (found.state, found.text, found.mend) == (
        "warning",
        "No usable",
        "set TMPDIR to a folder that can be written",
    )
