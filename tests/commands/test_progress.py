from collagan_dist.commands import progress


def test_a_log_has_a_line_now_and_then(monkeypatch, capsys):
    """What was done before the first call does not count in the rate."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.progress("packing", "pictures") as advance:
        advance(500, 1000)
        for second in range(10, 70, 10):
            now[0] = second
            advance(500 + second, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "packing: 530 of 1000 pictures, 1/s, ETA 470 s",
        "packing: 560 of 1000 pictures, 1/s, ETA 440 s",
    ]
