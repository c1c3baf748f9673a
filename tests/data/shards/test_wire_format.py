import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from collagan_dist.data.shards import wire_format
from tests.data.forged_tars import FORGED


def test_index_equals_dalis_own(shards, tmp_path):
    shard = shards.shards("train")[0]
    tool = Path(sys.executable).parent / "wds2idx"
    subprocess.run([tool, shards.folder / shard.name, tmp_path / "x.idx"], check=True, capture_output=True)
    assert (tmp_path / "x.idx").read_bytes() == (shards.folder / shard.index_name).read_bytes()


def test_plain_tar_tools_see_fixed_headers(shards):
    with tarfile.open(shards.folder / shards.shards("train")[0].name) as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.type) for m in members} == {(0, 0, 0, "", tarfile.REGTYPE)}
    assert all(not m.pax_headers for m in members)


def test_a_tar_has_the_bytes_of_webdatasets_writer():
    import webdataset

    mine, theirs = io.BytesIO(), io.BytesIO()
    ours = wire_format.ShardWriter(mine)
    writer = webdataset.TarWriter(theirs, mtime=0, user="", group="", encoder=False)
    for number, size in enumerate([0, 1, 511, 512, 513, 7000, 20000]):
        key, members = f"{number:092d}", {"jpg": os.urandom(size), "json": b"{}", "seg.png": os.urandom(size // 3)}
        ours.add(key, members)
        writer.write({"__key__": key, **members})
    ours.finish()
    writer.close()
    assert mine.getvalue() == theirs.getvalue()


@pytest.mark.parametrize(
    "line",
    [
        "jpg 512 100 a.jpg json 400 10 a.json",  # one inside the other
        "jpg 100 100 a.jpg json 1024 10 a.json",  # before the first header
        "jpg 512 -1 a.jpg json 1536 10 a.json",
        "jpg 512 100 a.jpg json 1536 100000000000000000 a.json",
        "jpg 512 100 a.jpg json 1536 10 b.json",
        "jpg 512 100 a.jpg json 1536",
        "",
    ],
)
def test_an_index_that_points_elsewhere_is_refused(line):
    valid = b"v1.2 1\njpg 512 100 a.jpg json 1536 10 a.json\n"
    assert wire_format.Index(valid, 10240)[0] == ("a", 512, 1034, {"jpg": (0, 100), "json": (1024, 10)}, None)
    with pytest.raises(ValueError):
        wire_format.Index(f"v1.2 1\n{line}\n".encode(), 10240)[0]


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_tar_has_no_index(tmp_path, kind):
    (tmp_path / "a.tar").write_bytes(FORGED[kind])
    with pytest.raises(tarfile.TarError):
        wire_format.index_from_tar(tmp_path / "a.tar")
