import gzip
import hashlib
import io
import random
import tarfile
from pathlib import Path

import pytest
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_expander

from collagan_dist.data.packing.tar_stream import HashedStream, TarMember, read_samples
from collagan_dist.data.shards.sample_index import split_name
from collagan_dist.errors import DataError
from tests.data.forged_tars import END, FORGED
from tests.data.wds_tars import by_tar, by_tarfile, member

WANTED = frozenset(("jpg", "json", "seg.png"))
LONG = "a folder.v2/" + "x" * 150
MEMBERS = [
    ("./", member(tarfile.DIRTYPE)),
    ("./b.json", b"{}"), ("./b.jpg", b"picture"), ("./b.txt", b"words"),
    (f"{LONG}/c.JPG", b"c"), (f"{LONG}/c.Seg.PNG", b"map"),
    ("__index__", b"no sample"), ("__pycache__/d.jpg", b"no sample"),
    ("README", b"no sample"), (".hidden.jpg", b"no sample"), ("._e.jpg", b"of a Mac"), ("dir.x/no", b"no sample"),
    ("ä ö.jpg", b"umlauts"),
]  # fmt: skip


def read(content: bytes) -> list[tuple[str, list[TarMember]]]:
    return list(read_samples(HashedStream(io.BytesIO(content)), "a.tar", WANTED))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_those_of_webdataset(tmp_path, form):
    by_tarfile(tmp_path / "a.tar", MEMBERS, form)
    content = (tmp_path / "a.tar").read_bytes()
    stream = HashedStream(io.BytesIO(content))
    found = list(read_samples(stream, "a.tar", WANTED))
    theirs = list(group_by_keys(tar_file_expander([{"url": "a", "stream": io.BytesIO(content)}])))
    assert [key for key, _ in found] == [sample["__key__"] for sample in theirs] == ["./b", f"{LONG}/c", "ä ö"]
    for (_, members), sample in zip(found, theirs, strict=True):
        # What is not wanted is not read, but its place is known.
        assert {m.extension: content[m.offset : m.offset + m.size] for m in members} == {
            k: v for k, v in sample.items() if k[:2] != "__"
        }
        assert all(m.content == (sample[m.extension] if m.extension in WANTED else b"") for m in members)
    assert (stream.count, stream.sha256()) == (len(content), hashlib.sha256(content).hexdigest())


def test_keys_are_those_of_webdataset():
    at = random.Random(0)
    for _ in range(3000):
        name = "".join(at.choices("ab./_ é\n", k=at.randrange(1, 12)))
        key, extension = base_plus_ext(name)
        assert split_name(name) == ((key, extension.lower()) if key else ("", "")), name


def test_links_devices_and_sparse_files_are_named(tmp_path):
    (tmp_path / "files").mkdir()
    with (tmp_path / "files/s.jpg").open("wb") as file:
        file.truncate(1 << 20)
    by_tar(tmp_path / "sparse.tar", {}, "--sparse", members=[".", "-C", str(tmp_path / "files"), "s.jpg"])
    by_tar(tmp_path / "pax.tar", {}, "--sparse", "--format=pax", members=[".", "-C", str(tmp_path / "files"), "s.jpg"])
    links = [
        ("a.jpg", member(tarfile.SYMTYPE, "b.jpg")),
        ("b.jpg", member(tarfile.LNKTYPE, "c.jpg")),
        ("c.jpg", member(tarfile.FIFOTYPE)),
    ]
    by_tarfile(tmp_path / "links.tar", links)
    problems = [m.problem for _, members in read((tmp_path / "links.tar").read_bytes()) for m in members]
    assert ["link" in p for p in problems] == [True, True, False] and "c.jpg is a device" in problems[2]
    for name in ("sparse.tar", "pax.tar"):
        ((key, (found,)),) = read((tmp_path / name).read_bytes())
        assert key == "s" and "sparse file" in found.problem


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("whole") / "a.tar"
    by_tarfile(path, [(f"{n}.jpg", bytes([n + 1]) * 1000) for n in range(5)])
    return path.read_bytes()


def test_a_tar_that_is_cut_anywhere_is_refused(whole):
    ends_at = 5 * (512 + 1024)
    assert len(read(whole)) == len(read(whole[: ends_at + 512])) == 5
    for cut in [0, 1, 511, 512, 513, 1600, ends_at - 1, ends_at, ends_at + 100]:
        with pytest.raises(DataError, match=r"a.tar: is damaged.*; copy it again"):
            read(whole[:cut])


def test_a_tar_with_a_damaged_header_is_refused(whole):
    for at in range(0, 5 * 1536, 1536):
        damaged = bytearray(whole)
        damaged[at + 130] ^= 1
        with pytest.raises(DataError, match=r"a.tar: is damaged"):
            read(bytes(damaged))


def test_what_follows_the_end_is_not_passed_over(whole):
    with pytest.raises(
        DataError,
        match=r"holds other bytes after the end of the tar, at byte 7680, .*`tar --concatenate`, not by `cat`",
    ):
        read(whole + whole)


@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"tar"), b"BZh91AY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd\0", b"PK\x03\x04"],
    # Named: gzip writes the time into its header, and all workers of a test run must collect equal names.
    ids=["gzip", "bzip2", "xz", "zstd", "zip"],
)
def test_compressed_tars_are_refused_with_the_mend(content):
    with pytest.raises(
        DataError, match=r"a.tar: is compressed, .*; undo that \((gunzip|bunzip2|unxz|unzstd|unzip, then tar)\)"
    ):
        read(content)


@pytest.mark.parametrize("content", [*FORGED.values(), b"no tar" * 200, END + END], ids=[*FORGED, "no tar", "empty"])
def test_what_is_no_tar_is_refused_or_empty(content):
    try:
        assert all(m.problem for _, members in read(content) for m in members)
    except DataError as error:
        assert "a.tar: is damaged" in str(error)
