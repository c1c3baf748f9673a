from collagan_dist.units import format_bytes, format_duration, format_things


def test_units():
    durations = {0: "0 s", 3.142: "3.14 s", 60: "1 min", 812: "13.5 min", 9000: "2.5 h", 86400 * 3: "3 d"}
    assert {seconds: format_duration(seconds) for seconds in durations} == durations
    sizes = {999: "999 B", 1000: "1.0 kB", 1_250_000: "1.2 MB", 3.06e9: "3.1 GB", 2e15: "2000.0 TB"}
    assert {count: format_bytes(count) for count in sizes} == sizes


def test_one_thing_and_several():
    assert [format_things(count, "shard") for count in (0, 1, 2)] == ["0 shards", "1 shard", "2 shards"]
