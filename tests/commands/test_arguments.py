import argparse

import pytest

from collagan_dist.commands import arguments


@pytest.mark.parametrize(
    ("convert", "values", "bad"),
    [
        (arguments.positive_int, {"1": 1, "12": 12}, ["0", "-1", "1.5", "many", ""]),
        (arguments.non_negative_int, {"0": 0, "3": 3}, ["-1", "1.0", "nan"]),
        (arguments.worker_count, {"0": 0, "1024": 1024}, ["-1", "1025", "x"]),
        (arguments.positive_float, {"0.01": 0.01, "2": 2.0}, ["0", "-1", "nan", "inf", "x"]),
        (arguments.fraction, {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["-0.1", "1.1", "nan", "x"]),
        (arguments.duration, {"2h": 7200, "1h30m": 5400}, ["2", "0h", "an hour", "-1h"]),
        (
            arguments.square,
            {"420,180,360": (420, 180, 360), "-5,0,1": (-5, 0, 1)},
            ["1,2", "1,2,0", "1,2,-3", "a,b,c", "1.5,2,3", "1,2,3,4"],
        ),
        (arguments.part_of, {"0/4": (0, 4), "3/4": (3, 4), "4/4": (4, 4)}, ["5/4", "1", "-1/4", "0/0", "a/b"]),
    ],
)
def test_values(convert, values, bad):
    assert {text: convert(text) for text in values} == values
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} is n"):
            convert(text)
