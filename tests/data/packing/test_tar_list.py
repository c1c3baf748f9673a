from pathlib import Path

import pytest

from collagan_dist import files
from collagan_dist.data.packing.tar_list import TarList, expand_braces, find_tars, splits_of_tars
from collagan_dist.errors import ConfigError, DataError


def tars(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return [str(folder / name) for name in names]


def test_tars_of_a_folder_and_by_name(tmp_path):
    given = tars(tmp_path, "b/train 1.tar", "a.v2.TAR", "b/c/x", "b/.hidden.tar", ".parts/d.tar")
    assert find_tars([str(tmp_path)]) == TarList(tmp_path, ("a.v2.TAR", "b/train 1.tar"))
    # A file that is named is taken whatever its suffix is; the folder is what all share.
    assert find_tars([given[0], given[2], given[0]]) == TarList(tmp_path / "b", ("c/x", "train 1.tar"))
    assert find_tars([f"{tmp_path}/{{a.v2.TAR,b/train 1.tar}}"]).folder == tmp_path


def test_paths_through_a_folder_above(tmp_path, monkeypatch):
    """Name the same tars as absolute ones, also from a folder that is a link."""
    given = tars(tmp_path, "a/train.tar", "b/val.tar")
    (tmp_path / "far/c").mkdir(parents=True)
    tars(tmp_path, "far/d/train.tar")
    (tmp_path / "b/link").symlink_to(tmp_path / "far/c")
    monkeypatch.chdir(tmp_path / "b")
    assert (
        find_tars(["../a/train.tar", "val.tar"]) == find_tars(given) == TarList(tmp_path, ("a/train.tar", "b/val.tar"))
    )
    assert find_tars(["../a"]) == find_tars(["../b/../a/train.tar"]) == TarList(tmp_path / "a", ("train.tar",))
    assert find_tars(["link/../d"]) == TarList(tmp_path / "far/d", ("train.tar",))
    assert find_tars(["link/../../b/val.tar", ".."]) == find_tars([str(tmp_path)])


def test_a_link_to_no_tar_is_not_left_out(tmp_path):
    """As of a disk that is not there."""
    tars(tmp_path, "a.tar", "b/c.tar")
    (tmp_path / "link.tar").symlink_to(tmp_path / "b/c.tar")
    assert find_tars([str(tmp_path)]).names == ("a.tar", "b/c.tar", "link.tar")
    (tmp_path / "b/lost.tar").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"b/lost.tar: is no file, or a link to none"):
        find_tars([str(tmp_path)])


def test_tars_of_a_store_at_any_depth(s3):
    for name in ("x.tar", "val/y.TAR", "val/.hidden.tar", ".parts/z.tar", "val/words.txt"):
        s3.write(f"data/{name}", b"")
    s3.write("database/beside.tar", b"")
    found = find_tars([s3.url])
    assert str(found.folder) == s3.url and found.names == ("val/y.TAR", "x.tar")


def test_braces():
    assert list(expand_braces("a{08..10}-{x,y}.tar")) == [f"a{n}-{x}.tar" for n in ("08", "09", "10") for x in "xy"]
    assert list(expand_braces("{3..1}")) == ["3", "2", "1"] and list(expand_braces("{}a{b")) == ["a{b"]
    with pytest.raises(ConfigError, match="more than 1000000 tars"):
        list(expand_braces("{0..99999999999}"))


def test_urls():
    found = find_tars(["https://example.org/data/{train,val}/0.tar", "https://example.org/data/my%20test/0.tar"])
    assert str(found.folder) == "https://example.org/data" and found.names == (
        "my test/0.tar",
        "train/0.tar",
        "val/0.tar",
    )
    assert str(find_tars(["https://example.org/0.tar"]).folder) == "https://example.org"
    twice = find_tars(
        ["https://example.org/a%20b.tar", "https://example.org/a b.tar", "https://example.org/%61%20b.tar"]
    )
    assert twice.names == ("a b.tar",)
    for words, said in (
        (["https://a.org/0.tar", "https://b.org/0.tar"], "lie on one server"),
        (["https://a.org/0.tar", "0.tar"], "not both"),
        (["https://user:password@a.org/0.tar"], "credentials belong in the environment"),
        (["ftp://a.org/0.tar"], "shards are read from a folder or from"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_tars(words)
    with pytest.raises(
        DataError, match=r"does not list its files; name the tars, as https://a.org/data/\{000..099\}.tar"
    ):
        find_tars(["https://a.org/data"])


@pytest.mark.parametrize("name", ["a\nb.tar", "back\\slash.tar", "\udce4.tar", ".tar"])
def test_names_that_no_manifest_holds(tmp_path, name):
    with pytest.raises(DataError, match="has a name that a manifest cannot hold"):
        find_tars(tars(tmp_path, name))


@pytest.mark.parametrize(("stem", "fits"), [("a" * 223, True), ("a" * 224, False), ("ü" * 112, False)])
def test_names_with_room_for_those_of_indexes(tmp_path, stem, fits):
    """The longest is that of a file while it is written."""
    names = tars(tmp_path, f"{stem}.tar")
    if fits:
        files.write_bytes(tmp_path / f"{stem}.train.samples", b"")
        assert find_tars(names).names == (f"{stem}.tar",)
    else:
        with pytest.raises(
            DataError, match="has a name over 223 bytes, too long for the names of its indexes; rename it"
        ):
            find_tars(names)


def test_tars_whose_indexes_would_have_one_name(tmp_path):
    with pytest.raises(DataError, match=r"a.(tar|TAR): differs from another tar by its suffix or by capitals alone"):
        find_tars(tars(tmp_path, "a.tar", "a.TAR"))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train-000.tar", "val_0.tar", "faces.test.tar"], ["train", "valid", "test"]),
        (["Train/0.tar", "validation/0.tar"], ["train", "valid"]),
        (["celeba-training-0.tar"], ["train"]),
        (["myTrain.tar", "FacesTest1.tar"], ["train", "test"]),
        (["TRAIN.TAR", "valset-0.tar", "test_set.tar"], ["train", "valid", "test"]),
        (["trains.tar", "0.tar", "latest.tar"], None),
        (["value.tar"], None),
        (["my-test.tar"], None),  # one tar alone
        (["train-val.tar"], None),
        (["train.tar"], ["train"]),
        (["test-0.tar", "test-1.tar"], ["test", "test"]),
    ],
)
def test_splits_by_names(names, splits):
    found = splits_of_tars(TarList(Path(), tuple(names)), "auto")
    assert found == (dict(zip(names, splits, strict=True)) if splits else None)
    assert splits_of_tars(TarList(Path(), tuple(names)), "hash") is None


@pytest.mark.parametrize(
    ("names", "by"), [(("train.tar", "0.tar"), "auto"), (("train-val.tar", "train.tar"), "auto"), (("0.tar",), "names")]
)
def test_names_that_leave_splits_unclear(names, by):
    with pytest.raises(DataError, match=r"has not one .* --split-by hash"):
        splits_of_tars(TarList(Path("there"), names), by)
