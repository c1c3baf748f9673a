import pytest

from collagan_dist.units import format_bytes, format_duration, format_things, parse_duration


def test_units():
    durations = {0: "0 s", 3.142: "3.14 s", 60: "1 min", 812: "13.5 min", 9000: "2.5 h", 86400 * 3: "3 d"}
    assert {seconds: format_duration(seconds) for seconds in durations} == durations
    sizes = {999: "999 B", 1000: "1.0 kB", 1_250_000: "1.2 MB", 3.06e9: "3.1 GB", 2e15: "2000.0 TB"}
    assert {count: format_bytes(count) for count in sizes} == sizes


def test_one_thing_and_several():
    assert [format_things(count, "shard") for count in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]


def test_durations_that_people_write():
    written = {
        "2h": 7200,
        "90m": 5400,
        "90min": 5400,
        "1h30m": 5400,
        "1.5 h": 5400,
        "1d 2h": 93600,
        "45s": 45,
        ".5h": 1800,
    }
    assert {text: parse_duration(text) for text in written} == written
    assert parse_duration(format_duration(5400)) == 5400
    for text in ("", "2", "h", "2 hours", "-2h", "1:30", "2h x", "nan h"):
        with pytest.raises(ValueError, match="is no duration"):
            parse_duration(text)
