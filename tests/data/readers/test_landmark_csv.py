import csv
import io
import random
import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.folder import read_folder
from collagan_dist.data.readers.landmark_csv import read_landmark_csv
from collagan_dist.errors import DataError
from collagan_dist.types import SPLITS
from tests.data.layouts import COLUMNS
from tests.data.packed import folder_recipe, replace_line


def test_floats_and_order_of_columns(tree, tmp_path):
    columns = ["right_mouth_y", *COLUMNS[:-1]]
    rows = [line.split(",")[:11] for line in (tree / "faces.csv").read_text().splitlines()[1:]]
    lines = [",".join([f"{float(r[10]) + 0.25}", *r[:10]]) for r in rows]
    (tree / "faces.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([",".join(columns), *lines]).encode())
    first = next(iter(read_folder(folder_recipe(tree, tmp_path / "o", labels="labels", landmarks="faces.csv"))))
    assert first.landmarks == tuple(
        (float(rows[0][i]), float(rows[0][i + 1]) + 0.25 * (i == 9)) for i in range(1, 11, 2)
    )


change = partial(replace_line, "faces.csv")


def swap_eyes(root: Path) -> None:
    lines = (root / "faces.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    (root / "faces.csv").write_text("\n".join([lines[0], *(",".join([r[0], *r[3:5], *r[1:3], *r[5:]]) for r in rows)]))


NUMBERS = "1,2,3,2,2,3,1,4,3,4"


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (lambda root: (root / "faces.csv").unlink(), ["faces.csv: this table of landmarks is missing"]),
        (change(1, "file,x"), ["faces.csv:1", "'left_eye_x' is missing"]),
        (change(1, ",".join([*COLUMNS, "smile"])), ["faces.csv:1", "'smile' is unknown"]),
        (change(1, ",".join([*COLUMNS, "file"])), ["faces.csv:1", "'file' is there twice"]),
        (change(5, f"000004.jpg,{NUMBERS}"), ["faces.csv:5: has 11 fields, the header 12"]),
        (change(5, f"000004.jpg,{NUMBERS[:-1]}four,train"), ["faces.csv:5: right_mouth_y must be a number", "'four'"]),
        (change(5, f"000004.jpg,{NUMBERS[:-1]}nan,train"), ["faces.csv:5: right_mouth_y must be a number"]),
        (change(5, f"000004.jpg,{NUMBERS},dev"), ["faces.csv:5: split must be train, valid or test, found 'dev'"]),
        (change(5, f"000003.jpg,{NUMBERS},train"), ["faces.csv:5: 000003.jpg is listed for the second time"]),
        (change(5, f"nobody.jpg,{NUMBERS},train"), ["faces.csv:5: nobody.jpg is no picture below", "set"]),
        (change(5, ""), ["faces.csv: has no row for 000004.jpg of", "set"]),
        (lambda root: (root / "000004.jpg").unlink(), ["faces.csv:5: 000004.jpg is no picture below"]),
        (change(5, '000004.jpg,"1'), ["faces.csv:", "is no CSV"]),
        (lambda root: (root / "faces.csv").write_bytes(b"\xff\xfe"), ["faces.csv: cannot be read as text"]),
        (swap_eyes, ["60 of 60 rows the left eye lies right of the right eye"]),
        (lambda root: (root / "labels/000004.png").unlink(), ["labels/000004.png: the label map is missing"]),
        (lambda root: shutil.copy(root / "000004.jpg", root / "000004.png"), ["no row for 000004.png"]),
        (lambda root: [p.unlink() for p in root.glob("*.jpg")], ["set: holds no picture (JPEG, PNG"]),
        (shutil.rmtree, ["set: no such folder, and no set.zip or .tar there"]),
    ],
)
def test_malformed(tree, tmp_path, edit, parts):
    edit(tree)
    with pytest.raises(DataError) as caught:
        pack(folder_recipe(tree, tmp_path / "out", labels="labels", landmarks="faces.csv"), workers=1)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert not (tmp_path / "out/manifest.json").exists()


ODD = [
    "", "nan", "inf", "1e999", "1_0", "٣", "0x1", "9" * 5000, "-0", "+3", ".5", "5.", "1e2", " 7 ", '"8"', '"1,2"', '"', "a\0", "1 2", "ä", "\ud800",
    "train", "a.jpg",
    "x" * 200_000, "#", "''", "\u2028", "１",
]  # fmt: skip
NUMBER = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?")


def mutated_lines(lines: list[str], separator: str, at: random.Random) -> bytes:
    """A list with one or two things changed: a field, a line, a column, its ends of lines, its bytes."""
    rows = [line.split(separator) for line in lines]
    for _ in range(at.randrange(3)):
        row, kind = at.choice(rows), at.randrange(7)
        if kind < 3 and row:
            row[at.randrange(len(row))] = at.choice(ODD)
        elif kind == 3:
            rows.insert(at.randrange(len(rows)), list(at.choice(rows)))
        elif kind == 4:
            rows.remove(row)
        elif kind == 5:
            column = at.randrange(len(rows[-1]) or 1)
            rows = [[cell for number, cell in enumerate(one) if number != column] for one in rows]
        else:
            at.shuffle(row)
    content = at.choice(["\n", "\r\n", "\n\n", "\r"]).join(map(separator.join, rows)).encode("utf-8", "surrogatepass")
    content = at.choice([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\xff\xfe"]) + content
    if at.random() < 0.3:
        place = at.randrange(len(content))
        content = content[:place] + at.choice([b"\0", b"\xff", b'"', b",", b" ", b"\n", b"\x1c"]) + content[place:]
    return content[: at.randrange(len(content))] if at.random() < 0.1 else content


def rows_by_the_standard_library(content: bytes) -> dict[str, tuple]:
    """What a table means: every field by its column's name."""
    text = io.StringIO(content.decode("utf-8-sig"), newline="")
    table = [[cell.strip() for cell in cells] for cells in csv.reader(text) if any(map(str.strip, cells))]
    named = [dict(zip(table[0], cells, strict=True)) for cells in table[1:]]
    assert all(NUMBER.fullmatch(row[column]) for row in named for column in COLUMNS[1:])
    return {row["file"]: (*(float(row[c]) for c in COLUMNS[1:]), row["split"], row["identity"]) for row in named}


@pytest.mark.parametrize("rounds", [300, pytest.param(10_000, marks=pytest.mark.full)])
def test_mutated_tables_are_refused_or_mean_what_they_say(rounds, tmp_path):
    lines = [",".join([*COLUMNS, "split", "identity"])]
    lines += [f"{n}.jpg,{n},2,{n + 3},2,2.5,3,1,4,3,4,{'train' if n % 3 else 'test'},{n // 2}" for n in range(1, 9)]
    path, at, refused = tmp_path / "faces.csv", random.Random(rounds), 0
    for number in range(rounds):
        path.write_bytes(content := mutated_lines(lines, ",", at))
        try:
            table = read_landmark_csv(str(path))
        except DataError as error:
            assert str(path) in str(error), number
            refused += 1
            continue
        splits, landmarks, people = table.columns(list(table.rows))
        if splits is None or people is None:  # columns that a table may lack
            continue
        known = zip(table.rows, landmarks.reshape(-1, 10).tolist(), splits, people, strict=True)
        found = {name: (*points, SPLITS[split], person or "") for name, points, split, person in known}
        assert found == rows_by_the_standard_library(content), number
    assert 0.2 * rounds < refused < 0.9 * rounds
