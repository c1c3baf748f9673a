import errno
import hashlib
import os
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from collagan_dist import files
from collagan_dist.errors import ConfigError


def test_a_file_is_complete_or_absent(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    files.write_text(path, "one")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]
    files.write_json(path, {"a": [1]})
    assert path.read_text() == '{\n "a": [\n  1\n ]\n}\n'
    assert files.sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_what_was_written(tmp_path, code):
    with (
        pytest.raises(files.DiskFull, match="no space left after 3 bytes of it") as raised,
        files.atomic_write(tmp_path / "file") as file,
    ):
        file.write(b"abc")
        file.flush()
        raise OSError(code, os.strerror(code))
    assert raised.value.bytes_written == 3 and list(tmp_path.iterdir()) == []


def test_one_command_at_a_time_has_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_LOCK_WAIT_SECONDS", 0.15)

    def lock(folder):
        return files.command_lock(tmp_path / folder, "collagan sweep")

    with lock("out"), pytest.raises(ConfigError, match="another `collagan sweep`"), lock("out"):
        pass
    with lock("out") as handle:
        assert not os.get_inheritable(handle)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used as a folder"), lock("file"):
        pass


def test_files_that_say_a_size_of_0_are_read_whole_and_bounded():
    """As those of /proc do."""
    large = {f"LARGE{number}": "x" * 100_000 for number in range(4)}
    process = subprocess.Popen(["sleep", "60"], env=large)
    try:
        path = Path(f"/proc/{process.pid}/environ")
        while b"LARGE3" not in path.read_bytes():  # it is ours until the new program is in place
            time.sleep(0.01)
        assert path.stat().st_size == 0 and files.read_regular(path, 1 << 20) == path.read_bytes()
        with pytest.raises(OSError, match=r"has at least \d+ bytes, more than 100000"):
            files.read_regular(path, 100_000)
    finally:
        process.kill()
        process.wait()


def test_a_file_is_not_asked_for_as_many_bytes_as_its_limit(tmp_path, monkeypatch):
    """Python sets them aside, which takes longer than reading a small file."""
    (tmp_path / "small").write_bytes(b"content")
    asked, read = [], os.read
    monkeypatch.setattr(os, "read", lambda handle, count: asked.append(count) or read(handle, count))
    assert files.read_regular(tmp_path / "small", 1 << 30) == b"content" and asked == [8, 1]


def test_a_file_that_cannot_be_written_is_said_beforehand(tmp_path):
    """What passes can be written, over a former result too; nothing is left there, and no result is touched."""
    files.check_file_writable(tmp_path / "new/result")
    files.write_text(tmp_path / "new/result", "former")
    files.check_file_writable(tmp_path / "new/result")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "result"]
    assert (tmp_path / "new/result").read_text() == "former"
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("new", "new: is a folder, which no file replaces; give --plot the name of a file"),
        ("pipe", "pipe: is a FIFO"),
        ("new/result/x", "result: cannot be used as a folder .*; give another --plot"),
        ("x" * 245, "x: cannot be written .*; give another --plot"),
        ("x" * 300, "x: cannot be written .*; give another --plot"),
    ):
        with pytest.raises(ConfigError, match=said):
            files.check_file_writable(tmp_path / name, "--plot")
        with pytest.raises(OSError) if name != "pipe" else nullcontext():
            files.write_text(tmp_path / name, "text")
