import json
import os
import random
import re
from pathlib import Path

import pytest

import collagan_dist
from collagan_dist import structured
from collagan_dist.errors import DataError
from collagan_dist.structured import Malformed, Record, find, parse_json, read, read_json
from tests.faults.damages import rounds
from tests.faults.mutations import mutated_json

GOOD = {"step": 9, "names": ['[{"', "\\", "ü"], "values": [1.5, None, True, {"deep": [[]]}]}


def test_what_is_json_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    assert read_json(tmp_path / "a.json") == GOOD
    wide = [{"shards": [[1], [2]]}] * 5000  # many brackets, and not deep
    assert parse_json(json.dumps(wide).encode(), "a") == wide
    assert parse_json(json.dumps(['[{"' * 100, '\\"[' * 100]).encode(), "a") == ['[{"' * 100, '\\"[' * 100]
    assert repr(parse_json(b'{"a": NaN}', "a", nan=True)) == "{'a': nan}"


class Known(Record):
    step: int
    name: str = ""


def test_a_model_is_what_is_known_of_a_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(
        '{"step": 3, "name": "\\ud83d\\ude00 \\udcff \\\\udcff", "newer": [1]}'
    )  # a pair, a byte, a backslash
    assert read(path, Known, DataError, "") == Known(step=3, name="\U0001f600 ? \\udcff")
    assert find(path, Known) is not None and find(tmp_path / "none.json", Known) is None
    for text, said in (('{"step": "3"}', "step: Input should be a valid integer (given: '3')"), ("{}", "step is missing"),
                       ('{"step": 3, "step": 4}', "key step is given twice"), ("[]", "Input should be an object")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(DataError) as refused:
            read(path, Known, DataError, "write it again")
        assert str(refused.value).startswith(f"{path}: ") and said in str(refused.value) and find(path, Known) is None
        assert str(refused.value).endswith("; write it again")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 20_000, "a.json:1: is nested more than 64 deep"),
        (b'{"a":\n' * 200_000, "a.json:65: is nested more than 64 deep"),
        (b'"' + b'\\"[' * 100_000, "a.json:1: is no JSON"),
        (b'{"a":\n 1,}', "a.json:2: is no JSON"),
        (b"9" * 5000, "is no JSON"),
        (b"NaN", "NaN is no number of JSON"),
        (b'{"a": 1e999}', "1e999 is too large a number"),
        (b"\xff\xfe\xfd", "is no JSON"),
        (b"", "a.json:1: is no JSON"),
    ],
)  # fmt: skip
def test_what_is_refused(content, said):
    with pytest.raises(Malformed, match=re.escape(said)):
        parse_json(content, "a.json")


def test_what_is_no_file_of_a_right_size_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * 101)
    with pytest.raises(OSError, match="is a FIFO"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OSError, match="more than 100"):
        read_json(tmp_path / "large", limit=100)
    with pytest.raises(OSError, match="has a NUL in its name"):
        read_json(tmp_path / "a\0b")


@rounds(300, 10_000)
def test_mutated_json(rounds):
    content = json.dumps(GOOD, indent=1).encode()
    for number in range(rounds):
        try:
            parse_json(mutated_json(content, random.Random(number)), "a.json")
        except Malformed as error:
            assert str(error).startswith("a.json:") and len(str(error)) < 300, number


# Text between ranks of one program; values of one of a table's cells or a sampler; lines of a log, in their own reader.
OTHERS = {
    "distributed",
    "sweep/dimensions.py",
    "report/trial_data.py",
    "runs/metrics_log.py",
    "data/shards/sample_check.py",
}


def test_no_other_place_parses_files():
    package = Path(structured.__file__).parent
    assert package == Path(collagan_dist.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"json\.loads?\(|\byaml\.(safe_load|parse|compose|load)\(", path.read_text())
    }
    home = {"structured.py", "config/strict_yaml.py"}
    assert home <= found and not [f for f in found - home if f not in OTHERS and f.split("/")[0] not in OTHERS], found
