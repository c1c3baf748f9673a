import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.packing.adopt import Adoption, adopt
from collagan_dist.data.packing.adopt_tar import TarJob, adopt_tar, read_lines
from collagan_dist.data.packing.tar_list import find_tars
from collagan_dist.data.shards.remote import open_location
from collagan_dist.errors import DataError
from tests.data.wds_tars import by_tarfile, member, quarantine

POINTS = [[30, 30], [60, 30], [45, 45], [35, 60], [55, 60]]


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = (100, 90), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(stream := io.BytesIO(), form, **options)
    return stream.getvalue()


def label_map(value: int = 3, size: tuple[int, int] = (100, 90)) -> bytes:
    return cv2.imencode(".png", np.full(size[::-1], value, np.uint8))[1].tobytes()


def annotation(**changes: object) -> bytes:
    return json.dumps({"landmarks": POINTS, **changes}).encode()


def clear(content: bytes) -> bytes:
    """A PNG that is transparent in one pixel."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    image.putpixel((3, 3), (0, 0, 0, 100))
    image.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


def turned(content: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(io.BytesIO(content)).save(stream := io.BytesIO(), "JPEG", exif=exif)
    return stream.getvalue()


JPG, PNG = picture("JPEG"), picture("PNG")
# Extension: content of a sample, and the reason for its quarantine (a part of it).
BAD: dict[str, tuple[list[tuple[str, bytes | tarfile.TarInfo]], str]] = {
    "no picture": ([("txt", b"words"), ("json", annotation())], "has no picture (jpg, jpeg, png), only json, txt"),
    "dots": ([(f"v1.{n}.jpg", JPG) for n in range(6)], "v1.4.jpg, ...; the key ends at the first dot of a file's name"),
    "a label map alone": ([("seg.png", label_map())], "has no picture"),
    "several pictures": ([("jpg", JPG), ("png", label_map())], "has several pictures (jpg, png); a label map is called KEY.seg.png"),
    "twice": ([("jpg", JPG), ("JPG", JPG)], "has two files .jpg, which webdataset refuses"),
    "a link": ([("jpg", member(tarfile.SYMTYPE, "else")), ("json", annotation())], "is a link"),
    "an empty picture": ([("jpg", b"")], "is an empty file"),
    "cut short": ([("jpg", JPG[:-500])], "damaged JPEG"),
    "a PNG that is cut short": ([("png", PNG[:-500])], "damaged"),
    "no JPEG": ([("jpg", b"GIF89a" + bytes(100))], "is GIF, which is not read"),
    "CMYK": ([("jpg", picture("JPEG", "CMYK"))], "wrong mode"),
    "small": ([("jpg", picture("JPEG", size=(20, 90)))], "20x90 pixels are smaller than 32x32"),
    "transparent": ([("png", clear(PNG))], "with transparency"),
    "16 bits": ([("png", cv2.imencode(".png", np.zeros((90, 100, 3), np.uint16))[1].tobytes())], "has 16 bits a channel"),
    "a WebP by another name": ([("jpg", picture("WEBP"))], "is WEBP, neither JPEG nor PNG"),
    "a label outside the classes": ([("jpg", JPG), ("seg.png", label_map(19))], "the value 19; classes are 0 to 10"),
    "a label map of another size": ([("jpg", JPG), ("seg.png", label_map(3, (99, 90)))], "is 99x90"),
    "a label map in colours": ([("jpg", JPG), ("seg.png", PNG)], "not grey with 8 bits"),
    "no face in the label map": ([("jpg", JPG), ("seg.png", label_map(0))], "no face"),
    "no JSON": ([("jpg", JPG), ("json", b"{")], "its json:1: is no JSON"),
    "68 points": ([("jpg", JPG), ("json", annotation(landmarks=POINTS * 13))], "landmarks of its json has 65 items"),
    "outside": ([("jpg", JPG), ("json", annotation(landmarks=[[300, 3], *POINTS[1:]]))], "a landmark lies outside the 100x90 picture"),
    "a small square": ([("jpg", JPG), ("json", annotation(landmarks=None, square=[45.5, 40.5, 2]))], "the face's square has 2 pixels, needs 32"),
    "another size": ([("jpg", JPG), ("json", annotation(width=200, height=180))], "its json says 200x180, the picture is 100x90"),
}  # fmt: skip
# What is taken, with landmarks where it says so.
GOOD: dict[str, list[tuple[str, bytes | tarfile.TarInfo]]] = {
    "upper case": [("JPG", JPG)],
    "jpeg": [("jpeg", JPG)],
    "png, grey": [("png", picture("PNG", "L"))],
    "png, palette": [("png", picture("PNG", "P"))],
    "jpg, grey": [("jpg", picture("JPEG", "L"))],
    "a json that says nothing": [("json", b'{"caption": NaN, "width": 10}'), ("jpg", JPG)],
    "a list as json": [("json", b"[1]"), ("jpg", JPG)],
    "more files": [("txt", b"w"), ("jpg", JPG), ("cls", b"3"), ("mask.png", b"x"), ("npy", b"y" * 70_000)],
    "turned": [("jpg", turned(JPG))],
    "a square beside a label map without a face": [
        ("jpg", JPG),
        ("seg.png", label_map(0)),
        ("json", annotation(landmarks=None, square=[45.5, 40.5, 60])),
    ],
}


def in_a_tar(path: Path, samples: dict[str, list[tuple[str, bytes | tarfile.TarInfo]]]) -> None:
    by_tarfile(
        path, [(f"x.y/{key}.{extension}", content) for key, files in samples.items() for extension, content in files]
    )


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bad")
    in_a_tar(folder / "train.tar", {**{key: files for key, (files, _) in BAD.items()}, "good": [("jpg", JPG)]})
    # Landmarks of none count: those that have some are damaged otherwise.
    assert adopt(Adoption(find_tars([str(folder)]), max_bad=1.0), workers=1).manifest.samples("train") == 1
    return quarantine(folder)


@pytest.mark.parametrize("key", BAD)
def test_a_sample_that_cannot_be_used_is_quarantined_with_its_reason(bad, key):
    assert BAD[key][1] in bad[f"x.y/{key}"]


def test_only_bad_samples_are_quarantined(bad):
    assert sorted(bad) == sorted(f"x.y/{key}" for key in BAD)


def test_other_samples_are_taken_and_what_is_not_used_is_counted(tmp_path):
    in_a_tar(tmp_path / "a.tar", GOOD)
    (tmp_path / ".adopting").mkdir()
    result = adopt_tar(job := TarJob(str(tmp_path), "a.tar", str(tmp_path), ()))
    assert (result.samples, result.quarantine, result.problem) == (len(GOOD), (), None)
    assert [line.key for line in read_lines(job, result)] == [f"x.y/{key}" for key in GOOD]
    unused = {name: count for name, count in result.counts.items() if name[0] == "."}
    assert unused == {".txt": 1, ".cls": 1, ".mask.png": 1, ".npy": 1} and result.counts["turned"] == 1


def test_whether_a_tar_in_a_store_is_the_same_is_asked_without_a_list_of_its_folder(s3, tmp_path):
    """As there may be 10,000 tars in it."""
    found = []
    for size in (3, 3, 4):
        s3.write("data/0.tar", bytes(size))
        found.append(TarJob(s3.url, "0.tar", str(tmp_path), ()).plan())
    assert found[0] == found[1] != found[2] and open_location(s3.url).size("0.tar") == 4
    assert not s3.requests[s3.bucket]
    assert open_location(s3.url).size("1.tar") is None


def test_names_that_are_not_utf8(tmp_path):
    """As systems of another character set wrote them, of samples and of files that are not used."""
    members = [("B\udce4r.jpg", JPG), *((f"{n}.jpg", JPG) for n in range(9)), ("8.t\udcfct", b"")]
    by_tarfile(tmp_path / "train.tar", members)
    found = adopt(Adoption(find_tars([str(tmp_path)]), max_bad=0.5), workers=1)
    assert found.manifest.samples("train") == 9 and found.counts[r".t\xfct"] == 1
    assert "is not in UTF-8" in quarantine(tmp_path)[r"B\xe4r"]


def test_an_index_of_an_older_tar_is_counted(tmp_path):
    for number in (9, 8):
        by_tarfile(tmp_path / "train.tar", [(f"{n}.jpg", JPG) for n in range(number)])
        (tmp_path / "manifest.json").unlink(missing_ok=True)
        found = adopt(Adoption(find_tars([str(tmp_path)])), workers=1)
    assert found.counts["other index"] == 1 and (tmp_path / "train.idx").read_bytes().startswith(b"v1.2 9\n")
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "train.idx").unlink()
    assert not adopt(Adoption(find_tars([str(tmp_path)])), workers=1).counts["other index"]


def test_files_of_a_sample_that_lie_apart(tmp_path):
    """As in a tar that was not sorted: webdataset would make two samples of them."""
    names = [("a.jpg", JPG), ("b.jpg", JPG), ("a.json", annotation()), ("c.jpg", JPG), ("./c.txt", b"words")]
    by_tarfile(tmp_path / "train.tar", names)
    found = adopt(Adoption(find_tars([str(tmp_path)])), workers=1).manifest
    assert found.samples("train") == 1
    reasons = quarantine(tmp_path)
    assert sorted(reasons) == ["a", "c"] and all("`tar --sort=name`" in reason for reason in reasons.values())


def test_files_that_a_tar_of_macos_has_between(tmp_path):
    names = [f"d/{hidden}{n}.{extension}" for n in range(3) for extension in ("jpg", "json") for hidden in ("._", "")]
    by_tarfile(tmp_path / "train.tar", [(name, JPG) for name in names])
    with pytest.raises(
        DataError, match=r"not one usable sample; 4 like train.tar: d/.*COPYFILE_DISABLE=1 makes its tar"
    ):
        adopt(Adoption(find_tars([str(tmp_path)])), workers=1)


@pytest.mark.parametrize("ignore", [(), ("landmarks",), ("labels",), ("labels", "landmarks")])
def test_the_face_square_is_that_of_packing(tmp_path, ignore):
    """From the landmarks, else the label map, else the picture's middle."""
    labels = np.zeros((90, 100), np.uint8)
    labels[20:80, 10:60] = 1
    in_a_tar(
        tmp_path / "a.tar",
        {"a": [("jpg", JPG), ("seg.png", cv2.imencode(".png", labels)[1].tobytes()), ("json", annotation())]},
    )
    (tmp_path / ".adopting").mkdir()
    result = adopt_tar(job := TarJob(str(tmp_path), "a.tar", str(tmp_path), ignore))
    (line,) = read_lines(job, result)
    expected = {(): None, ("labels",): None, ("landmarks",): 1.62 * 50, ("labels", "landmarks"): 90 / 1.3}[ignore]
    assert (line.landmarks is None) == ("landmarks" in ignore) and (line.labels is None) == ("labels" in ignore)
    assert line.square is None if expected is None else abs(line.square[2] - expected) < 1


def test_landmarks_of_another_kind_can_be_ignored(tmp_path):
    """With the square that was made of them. Without a word about them, the error names the way out."""
    samples = {f"{n}": [("jpg", JPG), ("json", annotation(landmarks=POINTS * 13))] for n in range(20)}
    in_a_tar(tmp_path / "train.tar", samples)
    tars = find_tars([str(tmp_path)])
    with pytest.raises(DataError, match=r"has 65 items.* \(--ignore landmarks adopts all samples without\)"):
        adopt(Adoption(tars), workers=1)
    assert adopt(Adoption(tars, ignore=("landmarks",)), workers=1).manifest.samples("train") == 20


@pytest.mark.parametrize("landmarks", [None, POINTS])
def test_a_face_square_that_packing_stored_is_kept(tmp_path, landmarks):
    """Whole pixels of its margin square; landmarks come first."""
    square = [45.5, 40.5, round(60 / 1.3, 3)]
    in_a_tar(tmp_path / "a.tar", {"a": [("jpg", JPG), ("json", annotation(landmarks=landmarks, square=square))]})
    (tmp_path / ".adopting").mkdir()
    result = adopt_tar(job := TarJob(str(tmp_path), "a.tar", str(tmp_path), ()))
    (line,) = read_lines(job, result)
    assert line.square == (square if landmarks is None else None)
