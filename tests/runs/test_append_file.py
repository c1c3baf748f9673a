from collagan_dist.runs.append_file import AppendFile


def test_lines_without_room_wait_and_are_completed(tmp_path, limit_file_size, capsys):
    """The write that fails in the middle leaves half a line, which is completed when there is room."""
    file = AppendFile(tmp_path / "log/lines.txt")
    lines = [f"line {number}\n".encode() for number in range(10)]
    limit_file_size(25)
    for line in lines[:9]:
        file.append(line)
    assert file.waiting and (tmp_path / "log/lines.txt").stat().st_size == 25
    warning = f"warning: {tmp_path}/log/lines.txt: File too large; its lines wait until they can be written\n"
    assert capsys.readouterr().err == warning  # once, not nine times
    limit_file_size(None)
    file.append(lines[9])
    file.close()
    assert not file.waiting and (tmp_path / "log/lines.txt").read_bytes() == b"".join(lines)


def test_what_never_found_room_is_counted(tmp_path, capsys):
    (tmp_path / "log").write_text("in the way")
    file = AppendFile(tmp_path / "log/events", pieces="events")
    file.append(b"1")
    file.append(b"2")
    file.close()
    waiting, lost = capsys.readouterr().err.splitlines()
    assert "its events wait" in waiting and lost == f"warning: {tmp_path}/log/events: 2 events could not be written"


def test_nothing_is_written_once_another_start_owns_the_folder(tmp_path):
    current = True
    file = AppendFile(tmp_path / "lines", lambda: current)
    file.append(b"mine\n")
    current = False
    file.append(b"late\n")
    file.close()
    assert (tmp_path / "lines").read_bytes() == b"mine\n"
    AppendFile(tmp_path / "others", lambda: current).close()
    assert not (tmp_path / "others").exists()
