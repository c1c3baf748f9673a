import importlib
import itertools
import json
import os
import random
import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, RootModel, ValidationError

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
    for text, said in (('{"step": "3"}', "step: needs an integer, is '3'"), ("{}", "step is missing"),
                       ('{"step": 3, "step": 4}', "key step is given twice"), ("[]", "needs keys and values, is a list")):  # fmt: skip
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


class Everything(Record):
    """A key for each way of being wrong."""

    number: Annotated[int, Field(ge=1, le=9)] | None = None
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    flag: bool = False
    name: Annotated[str, Field(min_length=2, max_length=3, pattern="^[a-z]*$")] = "aa"
    kind: Literal["plain", "ddp", 3] = "plain"
    pair: tuple[int, int] = (0, 0)
    items: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    either: str | tuple[str, ...] = ""
    nested: dict[str, Known] = {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"number": "a"}', "number: needs an integer, is 'a'"),
        ('{"number": 1.5}', "number: needs an integer, is 1.5"),
        ('{"number": true}', "number: needs an integer, is true"),
        ('{"number": [1]}', "number: needs an integer, is a list"),
        ('{"number": {"a": 1}}', "number: needs an integer, is keys and values"),
        ('{"number": 0}', "number: needs at least 1, is 0"),
        ('{"number": 10}', "number: needs at most 9, is 10"),
        ('{"share": null}', "share: needs a number, is null"),
        ('{"share": 0}', "share: needs more than 0, is 0"),
        ('{"share": 1.0}', "share: needs less than 1, is 1.0"),
        ('{"share": 1e999}', "share: needs a finite number, is inf"),
        ('{"flag": 1}', "flag: needs true or false, is 1"),
        ('{"name": 1}', "name: needs text, is 1"),
        ('{"name": "a"}', "name: needs at least 2 characters, is 'a'"),
        ('{"name": "aaaa"}', "name: needs at most 3 characters, is 'aaaa'"),
        ('{"name": "A1"}', "name: needs text that matches ^[a-z]*$, is 'A1'"),
        ('{"kind": "ddb"}', "kind: needs 'plain', 'ddp' or 3, is 'ddb'"),
        ('{"pair": 1}', "pair: needs a list, is 1"),
        ('{"pair": [1]}', "pair.1 is missing"),
        ('{"pair": [1, 2, 3]}', "pair: needs at most 2 items, has 3"),
        ('{"items": []}', "items: needs at least 1 item, has 0"),
        ('{"either": 3}', "either: needs text or a list, is 3"),
        ('{"nested": 3}', "nested: needs keys and values, is 3"),
        ('{"nested": {"a": []}}', "nested.a: needs keys and values, is a list"),
        ('{"nested": {"a": {}}}', "nested.a.step is missing"),
        ('{"number": 0, "flag": 1, "name": 1, "share": null, "pair": 1}', "; and 2 more"),
    ],
)
def test_what_is_wrong_is_said_in_our_words(text, said):
    with pytest.raises(Malformed) as refused:
        structured.check(text.encode(), Everything, "a.json")
    assert str(refused.value) == f"a.json: {said}" or said == str(refused.value)[-len(said) :]


def models() -> list[type[BaseModel]]:
    """All models of files, sections and records of the package."""
    package = Path(structured.__file__).parent
    for path in package.rglob("*.py"):
        if re.search(r"^class \w+\(.*(Record|Section|RootModel|_Begun)", path.read_text(), re.MULTILINE):
            importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts))
    found, left = [], [BaseModel]
    while left:
        left += (below := left.pop().__subclasses__())
        found += [one for one in below if one.__module__.startswith("collagan_dist.") and one.__pydantic_complete__]
    return found


def test_every_error_of_every_model_is_said_in_our_words():
    """Each key gets values of every kind; pydantic's names of its errors stand in no message."""
    wrong = [
        None,
        True,
        -1,
        0,
        1.5,
        1e999,
        10**30,
        1 << 70,
        "",
        "x" * 5000,
        "ü?",
        [],
        [1],
        [[]] * 20,
        {},
        {"a": 1},
        {"a": {"b": []}},
    ]
    kinds: set[str] = set()
    for model in models():
        names = [None] if issubclass(model, RootModel) else [*model.model_fields, "unknown_key"]
        for name, value in itertools.product(names, wrong):
            try:
                model.model_validate_json(json.dumps(value if name is None else {name: value}))
            except ValidationError as error:
                for one in structured.problems(error):
                    kinds.add(one.kind)
                    own = one.kind in {*structured._NEEDS, "missing", "value_error", *structured.UNKNOWN_KEY}
                    assert own, (model, name, value, one)
                    assert not [part for part in one.path if re.search(r"[\[\]-]", part)], one.path
                    assert one.kind in ("missing", "value_error") or not re.search("Input|should", one.text), one
    assert len(kinds) > 15, kinds


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
