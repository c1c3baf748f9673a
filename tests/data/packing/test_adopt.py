import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from collagan_dist.api import webdataset
from collagan_dist.config.tree import Augment
from collagan_dist.data.loading.decode import Decoders
from collagan_dist.data.loading.loader import Loader, View
from collagan_dist.data.loading.order import Order
from collagan_dist.data.packing import adopt_tar
from collagan_dist.data.packing.adopt import Adoption, adopt
from collagan_dist.data.packing.adopt_tar import TarJob, load_result
from collagan_dist.data.packing.pack import pack
from collagan_dist.data.packing.tar_list import TarList, find_tars
from collagan_dist.data.readers.folder import split_by_hash
from collagan_dist.data.shards import shard_files, wire_format
from collagan_dist.data.shards.manifest import Manifest, read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader
from collagan_dist.data.shards.verify import verify
from collagan_dist.errors import ConfigError, DataError, Interrupted
from collagan_dist.training.loop import StartOptions, train
from collagan_dist.types import World
from tests.data.loading.first_batch import CPU
from tests.data.packed import overwrite, recipe
from tests.data.remote_shards import names, remote_manifest
from tests.data.server import Server, serving
from tests.data.stores import hub_store
from tests.data.wds_tars import Samples, by_tar, by_tarfile, by_webdataset, quarantine, stored_samples
from tests.models.peers import StopAfter
from tests.training.small import equal, small, weights

SPLITS = ("train", "valid", "test")
VIEW = View(32, "block", 0, Augment(), training=True)


def adopted(*words: object, out: Path | None = None, **options: Any) -> Manifest:
    return adopt(Adoption(find_tars(list(map(str, words))), out, **options), workers=1).manifest


@pytest.fixture(scope="session")
def originals(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """60 drawn faces, packed as they are."""
    return pack(recipe(drawn, tmp_path_factory.mktemp("originals") / "packed", store="original"), workers=1)


def rewritten(packed: Manifest, out: Path, write: Callable[[Path, Samples], None]) -> Path:
    """The samples of each shard in a tar of the same name, by another program."""
    for split in packed.splits:
        for shard, samples in zip(packed.shards(split), stored_samples(packed, split), strict=True):
            write(out / shard.name, samples)
    return out


@pytest.fixture(scope="module")
def by_others(originals: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The same samples in the same order, written by webdataset, and adopted."""
    return adopted(rewritten(originals, tmp_path_factory.mktemp("others") / "tars", by_webdataset))


def batches(manifest: Manifest, split: str = "train") -> dict[str, tuple]:
    """What training sees in two epochs, by key: picture, holed picture, hole, label map, points."""
    reader, found = SplitReader(manifest, split), {}
    loader = Loader(reader, VIEW, 4, Decoders(1, CPU))
    numbers = np.arange(len(reader))[: len(reader) // 4 * 4].reshape(-1, 4)
    for batch in loader.batches((ids, np.full(4, epoch)) for epoch in (0, 1) for ids in numbers):
        tensors = [t.clone() for t in batch.tensors()]
        for row, number in enumerate(batch.ids_B):
            found[f"{reader.key(int(number))}, {batch.epoch_B[row]}"] = tuple(t[row] for t in tensors)
    assert not loader.damaged
    return found


def same(one: dict[str, tuple], other: dict[str, tuple]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(a, b) for key in one for a, b in zip(one[key], other[key], strict=True)
    )


def bytes_of(folder: Path, suffix: str = "") -> dict[str, bytes]:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(suffix) and p.name[0] != ".")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def stored(manifest: Manifest) -> dict[str, tuple]:
    """What the loader is given of every sample, by split and key."""
    readers = [SplitReader(manifest, split) for split in manifest.splits]
    samples = [(reader.name, reader.read(number)) for reader in readers for number in range(len(reader))]
    return {f"{split}/{s.key}": (s.uid, s.jpg.tobytes(), s.labels.tobytes(), *s[4:]) for split, s in samples}


GNU_TAR = {
    "with ./ and folders": ["--sort=name"],
    "pax": ["--sort=name", "--format=pax", "--pax-option=exthdr.name=%d/PaxHeaders/%f"],
    "v7": ["--sort=name", "--format=v7"],
}


@pytest.mark.parametrize("options", GNU_TAR.values(), ids=GNU_TAR)
def test_tars_by_tar_are_read_as_our_own(originals, tmp_path, options):
    """Keys, and so all random choices, do not depend on ./ in front; the batches are equal."""
    manifest = adopted(rewritten(originals, tmp_path / "tars", lambda path, samples: by_tar(path, samples, *options)))
    assert verify(manifest.folder, deep=True) == manifest
    assert stored(manifest) == stored(originals)
    if options == GNU_TAR["pax"]:
        assert same(batches(originals), batches(manifest))


def test_large_files_between_picture_and_label_map_are_not_read(originals, tmp_path, monkeypatch):
    """As `tar --sort=name` places them: samples and batches are those without; of the tar only what is used is read."""

    (samples,) = stored_samples(originals, "valid")
    by_tar(tmp_path / "without/valid.tar", samples, "--sort=name")
    large = {key: {**files, "npy": bytes(3 << 20)} for key, files in samples.items()}
    by_tar(tmp_path / "large/valid.tar", large, "--sort=name")
    without, manifest = (adopted(tmp_path / name, split_by="names") for name in ("without", "large"))
    read, pread = [], shard_files.LocalTar.pread
    monkeypatch.setattr(shard_files.LocalTar, "pread", lambda *given: read.append(given[1]) or pread(*given))
    assert stored(manifest) == stored(without) and same(batches(manifest, "valid"), batches(without, "valid"))
    assert [s["seg.png"] for s in webdataset(manifest.folder, "valid")]
    assert max(read) < 1 << 20


def test_a_training_on_tars_by_webdataset_is_that_on_our_own(originals, by_others, tmp_path):
    """Bit for bit, also when it is interrupted; beside each tar lies DALI's index, too."""
    for shard in by_others:
        tar = by_others.folder / shard.name
        assert tar.with_suffix(".idx").read_bytes() == wire_format.index_from_tar(tar)
    train(small(originals.folder), tmp_path / "ours", World())
    config = small(by_others.folder)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "theirs", World(), StartOptions(StopAfter(3)))
    train(config, tmp_path / "theirs", World())
    assert equal(weights(tmp_path / "ours", 7), weights(tmp_path / "theirs", 7))


def test_tars_are_read_in_place_and_the_manifest_comes_last(originals, tmp_path):
    """A tar that is cut short stops the command; what was read is not read again, and the result is that of an undisturbed one."""
    tars = rewritten(originals, tmp_path / "tars", by_webdataset)
    before, whole = bytes_of(tars), (tars / "train-000001.tar").read_bytes()
    (tars / "train-000001.tar").write_bytes(whole[:-30_000])
    with pytest.raises(DataError, match=r"train-000001.tar: is damaged or cut short at byte"):
        adopted(tars)
    assert not (tars / "manifest.json").exists()
    both = ("train-000000.tar", "train-000001.tar")
    read, unread = (load_result(TarJob(str(tars), name, str(tars), ())) for name in both)
    assert read.samples == 20 and unread is None
    (tars / "train-000001.tar").write_bytes(whole)
    first = adopted(tars)
    assert {name: content for name, content in bytes_of(tars).items() if name in before} == before
    assert not (tars / ".adopting").exists() and adopted(tars) == first
    written = {name: content for name, content in bytes_of(tars).items() if name not in before}
    for name in ("manifest.json", "train-000000.train.samples"):
        (tars / name).unlink()
    again = adopted(tars)
    assert again == first and {n: c for n, c in bytes_of(tars).items() if n not in before} == written


def test_a_result_of_a_tar_that_changed_is_not_used(originals, tmp_path):
    tars = rewritten(originals, tmp_path / "tars", by_webdataset)
    job = TarJob(str(tars), "test-000000.tar", str(tars), ())
    (tars / ".adopting").mkdir()
    adopt_tar.adopt_tar(job)
    assert load_result(replace(job)).samples == 6 and load_result(replace(job, ignore=("labels",))) is None
    by_webdataset(tars / "test-000000.tar", stored_samples(originals, "valid")[0])
    assert load_result(replace(job)) is None


def test_a_tar_that_is_replaced_while_it_is_read(originals, tmp_path, monkeypatch):
    """What was found in the older tar is not kept; the same command adopts the newer one."""
    old, new = (stored_samples(originals, split)[0] for split in ("train", "valid"))
    by_webdataset(tmp_path / "new/train.tar", new)
    by_webdataset(tmp_path / "tars/train.tar", old)
    read_samples = adopt_tar.read_samples

    def replaced(*given: Any) -> Iterator[Any]:
        for number, sample in enumerate(read_samples(*given)):
            if number == 3:
                shutil.copy(tmp_path / "new/train.tar", tmp_path / "moved")
                (tmp_path / "moved").replace(tmp_path / "tars/train.tar")
            yield sample

    with monkeypatch.context() as patched:
        patched.setattr(adopt_tar, "read_samples", replaced)
        with pytest.raises(DataError, match=r"train.tar: was changed while it was read; run the same command"):
            adopted(tmp_path / "tars")
    assert adopted(tmp_path / "tars").splits == adopted(tmp_path / "new").splits


def test_a_tar_that_changes_later_is_found(by_others, tmp_path):
    copy = read_manifest(shutil.copytree(by_others.folder, tmp_path / "copy"))
    overwrite(copy.folder / "train-000000.tar", 5000, b"changed")
    verify(copy.folder)
    with pytest.raises(
        DataError, match=r"train-000000.tar: its sha256 differs(.|\n)*remove manifest.json and run `collagan adopt`"
    ):
        verify(copy.folder, deep=True)
    (copy.folder / "train-000001.train.samples").unlink()
    with pytest.raises(DataError, match=r"train-000001.train.samples: is missing; run the same `collagan adopt` again"):
        verify(copy.folder)
    before = bytes_of(copy.folder)
    with pytest.raises(DataError, match=r"train-000000.tar: was changed after it was adopted \(1 such tar\)"):
        adopted(copy.folder)
    assert {n: c for n, c in bytes_of(copy.folder).items() if not n.startswith(".adopting")} == before
    (copy.folder / "train-000000.tar").write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"train-000000.tar: has 9 bytes, the manifest says"):
        adopted(copy.folder)


def test_lost_indexes_are_made_again(originals, tmp_path):
    """Of tars whose keys are shared and whose samples are of all splits, so that an index alone does not say what was decided."""
    samples = stored_samples(originals, "train")[0]
    for number in range(2):
        by_webdataset(tmp_path / f"{number}.tar", samples)
    first, before = adopted(tmp_path), bytes_of(tmp_path)
    (tmp_path / "0.train.samples").unlink()
    overwrite(tmp_path / "1.train.samples", 100, b"damaged")
    assert adopted(tmp_path) == first and bytes_of(tmp_path) == before
    # A manifest that lists other samples is never replaced.
    forged = json.loads(before["manifest.json"])
    forged["splits"]["train"]["shards"][0]["idx_sha256"] = "0" * 64
    (tmp_path / "manifest.json").write_text(json.dumps(forged))
    with pytest.raises(
        DataError, match=r"made again differ from those that the manifest lists; .* remove manifest.json"
    ):
        adopted(tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == forged


def test_indexes_made_again_that_differ_replace_nothing(originals, tmp_path, monkeypatch):
    """As those of a version that decides otherwise: the data set is what it was, with its one lost index."""
    tars = {f"{number}.tar": stored_samples(originals, "train")[number] for number in range(2)}
    for name, samples in tars.items():
        by_webdataset(tmp_path / name, samples)
    adopted(tmp_path)
    (tmp_path / "1.train.samples").unlink()
    (tmp_path / "quarantine.jsonl").write_text("read by somebody\n")

    def there() -> dict[str, bytes]:
        return {name: content for name, content in bytes_of(tmp_path).items() if not name.startswith(".adopting")}

    before = there()
    with monkeypatch.context() as patched:
        patched.setattr("collagan_dist.data.packing.adopt.split_by_hash", lambda key: int(key[-1]) % 3)
        with pytest.raises(DataError, match="made again differ from those that the manifest lists"):
            adopted(tmp_path)
    assert there() == before


def test_two_ranks_share_the_batches_of_one(by_others):
    """Bit for bit, where samples are read through streams, from tar to tar."""

    def read(world: World) -> list[tuple]:
        reader = SplitReader(by_others, "train")
        order = Order(len(reader), 8, 0, by_others.recipe["samples_per_shard"], 1)
        loader = Loader(reader, VIEW, 8 // world.size, Decoders(1, CPU))
        found = [(b.ids_B.copy(), *(t.clone() for t in b.tensors())) for b in loader.batches(order.steps(0, 3, world))]
        assert not loader.damaged
        return found

    one, *two = read(World()), read(World(0, 2)), read(World(1, 2))
    for whole, *parts in zip(one, *two, strict=True):
        assert all(len(part[0]) == 4 for part in parts)
        assert np.array_equal(whole[0], np.concatenate([part[0] for part in parts]))
        assert all(torch.equal(t, torch.cat(ts)) for t, *ts in zip(whole[1:], *(p[1:] for p in parts), strict=True))


def test_a_damaged_sample_is_replaced_and_counted(by_others, tmp_path):
    copy = read_manifest(shutil.copytree(by_others.folder, tmp_path / "copy"))
    entry = SplitReader(copy, "train")._open(0).index[2]
    overwrite(copy.folder / "train-000000.tar", entry.start + entry.parts["jpg"][0], bytes(entry.parts["jpg"][1]))
    loader = Loader(SplitReader(copy, "train"), VIEW, 4, Decoders(1, CPU))
    (batch,) = loader.batches(iter([(np.arange(4), np.zeros(4, np.int64))]))
    assert batch.ids_B.tolist() == [0, 1, 3, 3]
    assert [d.reason for d in loader.damaged] == [f"{copy.folder}/train-000000.tar: sample {entry.key} does not decode"]


def png_of(jpg: bytes) -> bytes:
    return cv2.imencode(".png", cv2.imdecode(np.frombuffer(jpg, np.uint8), cv2.IMREAD_COLOR))[1].tobytes()


@pytest.mark.parametrize("dali", [True, False])
def test_png_pictures_are_the_pixels_that_a_jpeg_decodes_to(originals, tmp_path, monkeypatch, dali):
    """By DALI and without it. A PNG with a wrong checksum is replaced, as a JPEG that does not decode."""
    if not dali:
        monkeypatch.setattr("collagan_dist.data.loading.dali_pipeline.DaliPipeline._build", raise_import_error)

    def write(path: Path, samples: Samples) -> None:
        by_webdataset(
            path, {k: {"PNG": png_of(m["jpg"]), "seg.png": m["seg.png"], "json": m["json"]} for k, m in samples.items()}
        )

    manifest = adopted(rewritten(originals, tmp_path / "tars", write))
    assert verify(manifest.folder, deep=True).samples("train") == 48
    assert same(batches(originals, "valid"), batches(manifest, "valid"))
    entry = SplitReader(manifest, "valid")._open(0).index[1]
    overwrite(manifest.folder / "valid-000000.tar", entry.start + entry.parts["jpg"][0] + 3000, b"x")
    loader = Loader(SplitReader(manifest, "valid"), VIEW, 4, Decoders(1, CPU))
    (batch,) = loader.batches(iter([(np.arange(4), np.zeros(4, np.int64))]))
    assert batch.ids_B.tolist() == [0, 2, 2, 3] and len(loader.damaged) == 1


def raise_import_error(*_: object) -> None:
    raise ImportError("no DALI here")


def test_splits_by_a_hash_run_through_the_middle_of_a_tar(originals, tmp_path):
    """Each sample is in one split, whatever tar it lies in; each split is read, and only that."""
    shards = [one for split in SPLITS for one in stored_samples(originals, split)]
    everything = dict(chain.from_iterable(one.items() for one in shards))
    by_webdataset(tmp_path / "one/faces v1.2.tar", everything)
    keys = list(everything)
    for number in range(4):
        by_webdataset(tmp_path / f"four/{number}/x.tar", {key: everything[key] for key in keys[number::4]})
    one, four = adopted(tmp_path / "one/faces v1.2.tar"), adopted(tmp_path / "four")
    assert verify(one.folder, deep=True) == one and verify(four.folder, deep=True) == four
    split_of = {key: split for split in SPLITS for key in (s["__key__"] for s in webdataset(one.folder, split))}
    assert sorted(split_of) == sorted(keys) and split_of == {
        key: split for split in SPLITS for key in (s["__key__"] for s in webdataset(four.folder, split))
    }
    assert [len([k for k in split_of if split_of[k] == split]) for split in SPLITS] == [one.samples(s) for s in SPLITS]
    assert {shard.name for shard in one} == {"faces v1.2.tar"} and sum(1 for _ in one) == 3
    assert stored(one) == stored(four)


def test_keys_that_tars_share_become_different(originals, tmp_path):
    """Tars that each count from 0 are common."""
    samples = list(stored_samples(originals, "valid")[0].values())
    for name in "ab":
        by_webdataset(tmp_path / f"train-{name}.tar", {f"{n:04d}": one for n, one in enumerate(samples)})
    reader = SplitReader(adopted(tmp_path), "train")
    assert [reader.key(number) for number in (0, 6)] == ["train-a/0000", "train-b/0000"]
    assert len({reader.read(number).uid for number in range(12)}) == 12
    verify(tmp_path, deep=True)


def test_url_of_tars(originals, by_others, cache, tmp_path, monkeypatch):
    """Read once, also over a connection that breaks; the manifest names the URL, and training reads through the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = rewritten(originals, tmp_path / "there", by_webdataset)
    (folder / "train-000002.tar").rename(folder / "train #3?.tar")
    with serving(folder) as server:
        server.faults["train-000001.tar"] = ["drop", ""]
        words = [
            f"{server.url}/{name}"
            for name in ("train-{000000..000001}.tar", "{valid,test}-000000.tar", "train%20%233%3F.tar")
        ]
        with pytest.raises(ConfigError, match="--out DIR"):
            adopted(*words)
        manifest = adopted(*words, out=tmp_path / "out")
        assert server.requests["train-000000.tar"] == 1 and server.requests["train-000001.tar"] == 2
        assert json.loads((tmp_path / "out/manifest.json").read_text())["tars"] == server.url
        assert {shard.name for shard in manifest.shards("train")} == {
            "train #3?.tar",
            "train-000000.tar",
            "train-000001.tar",
        }
        assert stored(manifest) == stored(originals)
        verify(tmp_path / "out", deep=True)
        config = small(tmp_path / "out", data__cache={"folder": str(cache)}, schedule__steps=2)
        train(config, tmp_path / "run", World())
        assert len(list(cache.glob("*.tar"))) == 4 and not list(tmp_path.glob("out/*.tar"))


def test_a_web_server_that_fails_when_it_is_asked_for_sizes(originals, tmp_path):
    """fsspec calls such a tar missing. It is asked again, and what stays is said."""
    folder = rewritten(originals, tmp_path / "there", by_webdataset)
    with serving(folder) as server:
        server.disturbed = ["HEAD", "GET"]
        server.faults["train-000000.tar"] = ["503", "503", "503", "503", ""]  # HEAD and GET of two tries
        url = f"{server.url}/train-000000.tar"
        assert adopted(url, out=tmp_path / "out").samples("train") == 20
        server.faults["train-000000.tar"], server.forever = ["503"], True
        with pytest.raises(DataError, match=f"{url}: cannot be fetched .the server answers 503.*3 times"):
            adopted(url, out=tmp_path / "again")
        server.faults["train-000000.tar"] = ["403"]
        with pytest.raises(DataError, match=f"{url}: access is denied"):
            adopted(url, out=tmp_path / "again")
        server.faults.clear()
        with pytest.raises(DataError, match=r"1.tar: there is no such file there$"):
            adopted(f"{server.url}/1.tar", out=tmp_path / "again")
    for ask in (lambda: adopted(url, out=tmp_path / "again"), lambda: verify(tmp_path / "out", deep=True)):
        with pytest.raises(DataError, match=r"cannot be fetched \(Cannot connect to host 127.0.0.1.*3 times"):
            ask()


def test_tars_in_a_bucket(originals, s3, cache, tmp_path, monkeypatch):
    """All of a folder of it: their names are asked for, and each is read once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    s3.upload(rewritten(originals, tmp_path / "there", by_webdataset))
    is_adopted_once(s3, originals, tmp_path / "out")


def test_tars_of_a_hub(originals, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with hub_store(rewritten(originals, tmp_path / "there", by_webdataset), monkeypatch) as hub:
        is_adopted_once(hub, originals, tmp_path / "out")


def is_adopted_once(store: Server, originals: Manifest, out: Path) -> None:
    """All tars of a store are adopted, each read once, and are what was packed."""
    manifest = adopted(store.url, out=out)
    assert {store.requests[shard.name] for shard in manifest} == {1} and str(manifest.tars) == store.url
    assert stored(manifest) == stored(originals)
    verify(out, deep=True)


def test_an_adopted_folder_behind_a_url(by_others, cache):
    """Uploaded as it is: manifest, indexes and tars come from there."""
    with serving(by_others.folder) as server:
        remote = remote_manifest(server.url, cache)
        assert stored(remote) == stored(by_others)
        assert names(cache) == {n for s in by_others for n in (f"{s.sha256}.tar", f"{s.idx_sha256}.idx")}
        verify(server.url, deep=True)
        server.faults["train-000001.train.samples"], server.forever = ["flip"], True
        with pytest.raises(DataError, match=r"train-000001.train.samples: expected at most \d+ bytes"):
            verify(server.url, deep=True)


def test_a_folder_of_its_own_for_tars_that_stay_where_they_are(by_others, tmp_path):
    tars = tmp_path / "read only"
    shutil.copytree(by_others.folder, tars, ignore=shutil.ignore_patterns("*.samples", "*.json*", "*.idx"))
    before = bytes_of(tars)
    manifest = adopted(tars, out=tmp_path / "out")
    assert bytes_of(tars) == before and manifest.tars == tars and stored(manifest) == stored(by_others)
    assert verify(tmp_path / "out", deep=True) == manifest
    forged = json.loads((tmp_path / "out/manifest.json").read_text()) | {"tars": "read only"}
    (tmp_path / "out/manifest.json").write_text(json.dumps(forged))
    with pytest.raises(DataError, match="tars: read only is no URL and no absolute path"):
        read_manifest(tmp_path / "out")


@pytest.mark.parametrize("place", ["a file", "/proc"])
def test_a_folder_that_takes_no_index_is_found_before_a_tar_is_read(by_others, tmp_path, place):
    """As the subfolder of tars that somebody else owns."""
    (tmp_path / "tars/a").mkdir(parents=True)
    for name in ("0.tar", "a/1.tar"):
        shutil.copy(by_others.folder / "valid-000000.tar", tmp_path / "tars" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "a file").write_text("")
    (tmp_path / "out/a").symlink_to(tmp_path / place)
    with pytest.raises(ConfigError, match=r"out/a: cannot be used as a folder \(.*\); give another --out"):
        adopted(tmp_path / "tars", out=tmp_path / "out")
    assert not list((tmp_path / "out/.adopting").iterdir())


def test_what_is_refused(originals, by_others, tmp_path):
    with pytest.raises(DataError, match="holds shards that `collagan pack` made"):
        adopted(originals.folder)
    with pytest.raises(DataError, match=r"adopted from other tars, or by other options; .* remove manifest.json"):
        adopted(by_others.folder, ignore=("labels",))
    tars = tmp_path / "tars"
    shutil.copytree(by_others.folder, tars, ignore=shutil.ignore_patterns("*.samples", "manifest.json"))
    (tars / "train-000000.train.samples").write_text("mine")
    with pytest.raises(DataError, match=r"train-000000.train.samples: is a file of another program"):
        adopted(tars)
    (tars / "manifest.json").write_text('{"of": "another program"}')
    with pytest.raises(
        DataError, match="pack or adopt the data set again; remove it, or if it is of another program, give another"
    ):
        adopted(tars)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="there is no tar"):
        adopted(tmp_path / "empty")


def test_tars_without_a_sample(tmp_path):
    by_tarfile(tmp_path / "train.tar", [("README", b"no sample has such a name")])
    with pytest.raises(
        DataError, match=r"not one usable sample; there are no files KEY.jpg, KEY.jpeg or KEY.png in these"
    ):
        adopted(tmp_path)


def test_exchanged_eyes(originals, tmp_path):
    """In more than half of the samples; where they are few, heads are upside down."""
    (samples,) = stored_samples(originals, "valid")
    for number, folder in ((len(samples) // 2, "few"), (len(samples) // 2 + 1, "many")):
        crossed = {
            key: changed(members, landmarks=[points[1], points[0], *points[2:]]) if n < number else members
            for n, (key, members) in enumerate(samples.items())
            for points in [json.loads(members["json"])["landmarks"]]
        }
        by_webdataset(tmp_path / folder / "train.tar", crossed)
    assert adopted(tmp_path / "few").samples("train") == len(samples)
    with pytest.raises(
        DataError, match=rf"in {number} of {len(samples)} samples the left eye lies right .*--ignore landmarks"
    ):
        adopted(tmp_path / "many")
    assert adopted(tmp_path / "many", ignore=("landmarks",)).samples("train") == len(samples)


def test_a_hash_that_would_leave_none_to_train_on(originals, tmp_path):
    """As of a single person: all are of train. It stays so when indexes are made again."""
    name = next(name for name in map(str, range(99)) if SPLITS[split_by_hash(name)] == "test")
    by_webdataset(tmp_path / "person.tar", samples := persons(originals, lambda n: name))
    manifest, before = adopted(tmp_path), bytes_of(tmp_path)
    assert list(manifest.splits) == ["train"] and manifest.samples("train") == len(samples)
    (tmp_path / "person.train.samples").unlink()
    assert adopted(tmp_path) == manifest and bytes_of(tmp_path) == before


def test_more_tars_than_a_manifest_can_list(tmp_path, monkeypatch):
    """Are refused before the first is read."""
    monkeypatch.setattr("collagan_dist.data.packing.adopt.MAX_BYTES", 15_000)
    tars = TarList(tmp_path, tuple(f"{number}.tar" for number in range(20)))
    with pytest.raises(ConfigError, match=r"20 tars are more than a manifest can list; adopt 12 of them"):
        adopt(Adoption(tars))


def changed(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return {**members, "json": json.dumps({**json.loads(members["json"]), **changes}).encode()}


def persons(originals: Manifest, name: Callable[[int], str]) -> Samples:
    every = chain.from_iterable(one.items() for one in stored_samples(originals, "train"))
    return {key: changed(members, identity=name(n)) for n, (key, members) in enumerate(every)}


def test_a_person_is_in_one_split(originals, tmp_path):
    """By the same share as a key; a sample without a person goes by its key."""
    samples = persons(originals, lambda n: None if n < 20 else f"person {n % 9}")
    by_webdataset(tmp_path / "a.tar", dict(list(samples.items())[::2]))
    by_webdataset(tmp_path / "b.tar", dict(list(samples.items())[1::2]))
    first, before = adopted(tmp_path), bytes_of(tmp_path)
    expected = {key: SPLITS[split_by_hash(json.loads(m["json"])["identity"] or key)] for key, m in samples.items()}
    assert {s["__key__"]: split for split in SPLITS for s in webdataset(tmp_path, split)} == expected
    assert expected != {key: SPLITS[split_by_hash(key)] for key in samples} and first.recipe["hash_of"] == "identity"
    (tmp_path / "a.train.samples").unlink()
    assert adopted(tmp_path) == first and bytes_of(tmp_path) == before


def test_a_data_set_that_was_split_by_keys_stays_so(originals, tmp_path, monkeypatch):
    by_webdataset(tmp_path / "a.tar", samples := persons(originals, lambda n: f"person {n}"))
    key_of = {json.loads(members["json"])["identity"]: key for key, members in samples.items()}
    with monkeypatch.context() as patched:
        patched.setattr("collagan_dist.data.packing.adopt.split_by_hash", lambda person: split_by_hash(key_of[person]))
        adopted(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["recipe"].pop("hash_of")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    before = bytes_of(tmp_path)
    (tmp_path / "a.train.samples").unlink()
    assert "hash_of" not in adopted(tmp_path).recipe and bytes_of(tmp_path) == before


def test_annotation_that_only_some_have(originals, tmp_path):
    samples = {f"{n:03d}": m for n, m in enumerate(stored_samples(originals, "train")[0].values())}
    without = {key: changed(members, landmarks=None) if key < "012" else members for key, members in samples.items()}
    by_webdataset(tmp_path / "train.tar", without)
    with pytest.raises(
        DataError,
        match=r"12 of 20 .* like train.tar: 000: has no landmarks \(in KEY.json\), .*--ignore landmarks adopts all",
    ):
        adopted(tmp_path)
    assert len(quarantine(tmp_path)) == 12 and not list(tmp_path.glob("*.samples"))
    some, before = adopted(tmp_path, max_bad=0.7), bytes_of(tmp_path)
    assert some.samples("train") == 8 and some.quarantined == 12 and len(quarantine(tmp_path)) == 12
    (tmp_path / "train.train.samples").unlink()
    assert adopted(tmp_path) == some and bytes_of(tmp_path) == before
    (tmp_path / "manifest.json").unlink()
    every = adopted(tmp_path, ignore=("landmarks",))
    assert every.samples("train") == 20 and all(
        SplitReader(every, "train").read(n).landmarks is None for n in range(20)
    )
    with pytest.raises(DataError, match="has no landmarks, which a task of this model needs; train --model M_is"):
        Loader(SplitReader(every, "train"), VIEW, 4, Decoders(1, CPU))
