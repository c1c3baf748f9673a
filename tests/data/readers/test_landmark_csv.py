import shutil
from functools import partial
from pathlib import Path

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.data.readers.folder import read_folder
from collagan_dist.errors import DataError
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
