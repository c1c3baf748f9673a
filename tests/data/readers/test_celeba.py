import random
from pathlib import Path

import pytest

from collagan_dist.data.readers.celeba import read_aligned, read_in_the_wild
from collagan_dist.errors import DataError
from collagan_dist.types import SPLITS
from tests.data.layouts import rows_of, splits_of
from tests.data.packed import recipe
from tests.data.readers.test_landmark_csv import mutated_lines


def test_samples_are_the_rows_of_the_annotation(drawn):
    samples = read_in_the_wild(recipe(drawn, drawn))
    rows, splits = rows_of(drawn), splits_of(drawn)
    assert [s.source for s in samples] == list(rows)
    for sample in samples:
        assert [str(int(v)) for point in sample.landmarks or () for v in point] == rows[sample.source]
        assert sample.split == SPLITS[int(splits[sample.source])]
        assert Path(str(sample.path)).is_file() and Path(str(sample.labels)).is_file()
    assert {s.split for s in read_in_the_wild(recipe(drawn, drawn, splits=("test",)))} == {"test"}


def test_aligned_pictures_have_a_folder_of_their_own(drawn):
    with pytest.raises(DataError, match=r"img_align_celeba: no such folder of pictures"):
        read_aligned(recipe(drawn, drawn))


LISTS = {
    "landmarks": "Anno/list_landmarks_celeba.txt",
    "splits": "Eval/list_eval_partition.txt",
    "identities": "Anno/identity_CelebA.txt",
}


def as_csv(path, columns, announced):
    """Rewrite a published list as the CSV file that download sites make of it."""
    lines = path.read_text().splitlines()[2 if announced else 0 :]
    path.with_suffix(".csv").write_text("\n".join([columns, *(",".join(line.split()) for line in lines)]) + "\n")
    path.unlink()


def to_csv(root):
    as_csv(root / LISTS["landmarks"], "image_id," + ",".join(COLUMNS), True)
    as_csv(root / LISTS["splits"], "image_id,partition", False)


def to_flat(root):
    """The layout that torchvision unpacks."""
    for folder in ("Img", "Anno", "Eval"):
        for path in list((root / folder).iterdir()):
            path.rename(root / path.name)


def with_byte_order_mark(root):
    for name in LISTS.values():
        if (root / name).exists():
            (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes())


def doubled(root):
    (root / "Img/img_celeba").rename(root / "inner")
    (root / "Img/img_celeba").mkdir()
    (root / "inner").rename(root / "Img/img_celeba/img_celeba")


def other_suffixes(root):
    for number, path in enumerate(sorted((root / "Img/img_celeba").iterdir())):
        path.rename(path.with_suffix((".png", ".JPG", ".jpeg")[number % 3]))


def other_order(root):
    """Nose first, by its name in the line of columns."""
    path = root / LISTS["landmarks"]
    count, _, *rows = path.read_text().splitlines()
    moved = [" ".join([name, *values[4:6], *values[:4], *values[6:]]) for name, *values in map(str.split, rows)]
    path.write_text("\n".join([count, " ".join([*COLUMNS[4:6], *COLUMNS[:4], *COLUMNS[6:]]), *moved]) + "\n")


COLUMNS = [
    "lefteye_x",
    "lefteye_y",
    "righteye_x",
    "righteye_y",
    "nose_x",
    "nose_y",
    "leftmouth_x",
    "leftmouth_y",
    "rightmouth_x",
    "rightmouth_y",
]


@pytest.mark.parametrize("edit", [to_csv, to_flat, with_byte_order_mark, doubled, other_suffixes, other_order])
def test_copies_of_celeba_give_the_same_samples(edit, copy_of_drawn):
    names = sorted(p.name for p in (copy_of_drawn / "Img/img_celeba").iterdir())
    (copy_of_drawn / LISTS["identities"]).write_text("".join(f"{n} {i // 3}\n" for i, n in enumerate(names)))
    before = read_in_the_wild(recipe(copy_of_drawn, copy_of_drawn))
    edit(copy_of_drawn)
    after = read_in_the_wild(recipe(copy_of_drawn, copy_of_drawn))
    facts = [
        [(s.key, s.split, s.landmarks, s.identity, Path(s.source).stem) for s in samples] for samples in (before, after)
    ]
    assert facts[0] == facts[1] and all(Path(s.path).is_file() for s in after)


def exchange_sides(values):
    return [*values[2:4], *values[:2], *values[4:6], *values[8:10], *values[6:8]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (exchange_sides, "in 60 of 60 rows the left eye lies right of the right eye"),
        (
            lambda values: ["69", "111", "108", "111", "88", "136", "72", "152", "105", "152"],
            "landmarks of the aligned pictures",
        ),
    ],
)
def test_landmarks_that_mean_something_else_are_refused(change, message, copy_of_drawn):
    path = copy_of_drawn / LISTS["landmarks"]
    head, rows = path.read_text().splitlines()[:2], path.read_text().splitlines()[2:]
    path.write_text("\n".join([*head, *(" ".join([n, *change(values)]) for n, *values in map(str.split, rows))]) + "\n")
    with pytest.raises(DataError, match=message):
        read_in_the_wild(recipe(copy_of_drawn, copy_of_drawn))


def test_unknown_columns_are_named(copy_of_drawn):
    path = copy_of_drawn / LISTS["landmarks"]
    path.write_text(path.read_text().replace("nose_x", "chin_x"))
    with pytest.raises(DataError, match=r"list_landmarks_celeba.txt: its columns are '.*chin_x.*', needs lefteye_x "):
        read_in_the_wild(recipe(copy_of_drawn, copy_of_drawn))


def lists_of(root: Path) -> dict[str, list]:
    """What the three lists say of each name, field by field."""
    fields = {name: [line.split() for line in read(root / file)] for name, file in LISTS.items()}
    columns, rows = fields["landmarks"][1], fields["landmarks"][2:]
    splits, people = (dict(fields[name]) for name in ("splits", "identities"))
    where = [columns.index(name) + 1 for name in COLUMNS]
    assert all(value.lstrip("+-").isascii() for row in rows for value in row[1:])
    return {
        row[0]: [*(float(row[at]) for at in where), SPLITS[int(splits[row[0]])], people.get(row[0])] for row in rows
    }


def read(path: Path) -> list[str]:
    return [line for line in path.read_bytes().decode("utf-8-sig").replace("\r", "\n").split("\n") if line.strip()]


@pytest.mark.parametrize("rounds", [200, pytest.param(10_000, marks=pytest.mark.full)])
def test_mutated_lists_are_refused_or_mean_what_they_say(rounds, tmp_path):
    at, names, refused = random.Random(rounds), [f"{number:06d}.jpg" for number in range(1, 9)], 0
    lines = {
        "landmarks": ["8", " ".join(COLUMNS), *(f"{n} {number * 30} 1 {number * 30 + 9} 1 4 4 1 7 8 7" for number, n in enumerate(names))],
        "splits": [f"{n} {number % 3}" for number, n in enumerate(names)],
        "identities": [f"{n} {number // 2}" for number, n in enumerate(names)],
    }  # fmt: skip
    for folder in ("Img/img_celeba", "Anno", "Eval"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(rounds):
        chosen = at.choice(list(LISTS))
        for name, file in LISTS.items():
            (tmp_path / file).write_text("\n".join(lines[name]))
        (tmp_path / LISTS[chosen]).write_bytes(mutated_lines(lines[chosen], " ", at))
        try:
            samples = list(read_in_the_wild(recipe(tmp_path, tmp_path)))
        except DataError as error:
            assert str(tmp_path) in str(error), number
            refused += 1
            continue
        found = {s.source: [*(v for point in s.landmarks for v in point), s.split, s.identity] for s in samples}
        assert found == lists_of(tmp_path), number
    assert 0.2 * rounds < refused < 0.95 * rounds
