from collections.abc import Iterator

from collagan_dist.doctor.finding import Finding, ok, run_check


def test_a_check_that_breaks_is_a_finding():
    """What it found before is kept."""

    def broken() -> Iterator[Finding]:
        yield ok("decoding", "so far")
        raise RuntimeError("no such device\nand more")

    first, second = run_check("decoding", broken)
    assert first == ok("decoding", "so far")
    assert second == Finding("decoding", "failed", "RuntimeError: no such device")
