import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from collagan_dist.data.loading.holes import continue_smoothly
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.inference.complete import CompleteOptions, complete
from collagan_dist.inference.export import export
from collagan_dist.tasks.inpainting import to_bytes
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.data.profiles import adobe_rgb
from tests.training.small import small


def test_only_completions_are_blended(landmarks_run, trained_run, drawn, tmp_path):
    picture = drawn / "Img/img_celeba/000001.jpg"
    with pytest.raises(ConfigError, match="no completions to blend"):
        complete(landmarks_run, picture, tmp_path / "out", None, CompleteOptions("poisson"))
    (sheet,) = complete(trained_run, picture, tmp_path / "out", "O6", CompleteOptions("poisson")).sheets
    assert sheet.is_file()


def test_a_hole_has_the_shape_of_the_picture_or_of_its_square(trained_run, tmp_path):
    for name, (height, width) in {"photo": (48, 36), "whole": (96, 72), "square": (20, 20), "wrong": (20, 50)}.items():
        picture = np.zeros((height, width, 3), np.uint8)
        picture[height // 4 : height // 2] = 255
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    for name in ("whole", "square"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / name, str(tmp_path / f"{name}.png"))
    with pytest.raises(DataError, match=r"is 50x20, of another shape than the picture \(36x48\)"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / "out", str(tmp_path / "wrong.png"))
    with pytest.raises(ConfigError, match="only how a model is evaluated"):
        complete(trained_run, tmp_path / "photo.png", tmp_path / "out", None, CompleteOptions(sets=["seed=3"]))


def test_the_hole_of_a_picture_is_filled_as_in_training(shards, drawn, tmp_path):
    """By a run and by its export: their sheets begin with what the generator sees."""
    train(small(shards.folder, hole={"fill": "smooth"}, schedule__steps=1), tmp_path / "run", World())
    export(tmp_path / "run", tmp_path / "exported")
    source = cv2.imread(str(drawn / "Img/img_celeba/000001.jpg"))[:360]
    pixels = cv2.resize(source, (32, 32), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "face.png"), pixels)
    hole = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 8:24, 4:20] = True
    cv2.imwrite(str(tmp_path / "hole.png"), hole[0, 0].numpy() * np.uint8(255))
    seen = continue_smoothly(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1, hole)
    for model in ("run", "exported"):
        result = complete(
            tmp_path / model, tmp_path / "face.png", tmp_path / f"{model}-out", str(tmp_path / "hole.png")
        )
        sheet = cv2.imread(str(result.sheets[0]))[30 : 30 + 128 : 4, :128:4]  # below the heads, each pixel four times
        assert abs(sheet.astype(int) - to_bytes(seen)[0]).max() <= 1


def test_a_folder_is_completed_inside_the_hole_alone_and_to_the_same_bytes_again(trained_run, drawn, tmp_path):
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        picture = cv2.imread(str(drawn / f"Img/img_celeba/{number:06d}.jpg"))[:360]
        cv2.imwrite(str(tmp_path / f"in/{number}.png"), cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA))
    hole = np.zeros((32, 32), np.uint8)
    hole[8:24, 4:20] = 255
    cv2.imwrite(str(tmp_path / "hole.png"), hole)
    for out in ("one", "two"):
        sheets = complete(trained_run, tmp_path / "in", tmp_path / out, str(tmp_path / "hole.png")).sheets
        assert [sheet.name for sheet in sheets] == ["1.sheet.png", "2.sheet.png"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    for number in (1, 2):
        original, done = (cv2.imread(str(tmp_path / f)) for f in (f"in/{number}.png", f"one/{number}.completed.png"))
        changed = (original != done).any(axis=-1)
        assert changed[hole > 0].any() and not changed[hole == 0].any()
        labels = cv2.imread(str(tmp_path / f"one/{number}.labels.png"), cv2.IMREAD_UNCHANGED)
        points = json.loads((tmp_path / f"one/{number}.landmarks.json").read_text())
        assert labels.shape == (32, 32) and len(points) == 5


def test_what_cannot_be_completed_is_named(trained_run, tmp_path):
    for folder, names in {"none": [], "two": ["a.jpg", "a.png"], "one": ["a.jpg"]}.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"")
    for source, hole, message in (
        ("no", None, "no such picture or folder"),
        ("none", None, "holds no picture"),
        ("two", None, "two pictures are called a;"),
        ("one", None, r"a\.jpg: is an empty file"),
        ("one", "nothing", "--hole nothing: must be a PNG file"),
    ):
        with pytest.raises((DataError, ConfigError), match=message):
            complete(trained_run, tmp_path / source, tmp_path / "out", hole)


def faces(drawn, folder, count=3):
    """PNGs of 32x32, a.png and so on."""
    folder.mkdir()
    for number, path in enumerate(sorted((drawn / "Img/img_celeba").glob("*.jpg"))[:count]):
        picture = cv2.resize(cv2.imread(str(path))[:360], (32, 32), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{chr(97 + number)}.png"), picture)
    return folder


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


def block(corner, shape=(32, 32)):
    hole = np.zeros(shape, np.uint8)
    hole[corner[0] : corner[0] + 12, corner[1] : corner[1] + 12] = 255
    return Image.fromarray(hole)


def test_one_bad_picture_is_left_out_and_the_rest_goes_on(trained_run, drawn, tmp_path, capsys):
    source = faces(drawn, tmp_path / "in")
    (source / "b.png").write_bytes((source / "b.png").read_bytes()[:300])
    (source / "d.gif").write_bytes(b"GIF89a" + bytes(99))
    os.mkfifo(source / "e.jpg")
    (source / "notes").write_text("no picture")
    result = complete(trained_run, source, tmp_path / "out", "none")
    assert [sheet.name for sheet in result.sheets] == ["a.sheet.png", "c.sheet.png"]
    assert [name for name, _ in result.left_out] == [str(source / name) for name in ("b.png", "d.gif", "e.jpg")]
    said = capsys.readouterr().err
    assert (
        "b.png: damaged" in said
        and "d.gif: is GIF, which is not read" in said
        and "e.jpg: cannot be read: is a FIFO" in said
    )


def test_more_bad_pictures_than_are_accepted(trained_run, drawn, tmp_path):
    source = faces(drawn, tmp_path / "in", 1)
    for number in range(11):
        (source / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"11 of 12 pictures are unusable, more than --max-bad 0.5 allows"):
        complete(trained_run, source, tmp_path / "out", "none", CompleteOptions(max_bad=0.5))
    assert (tmp_path / "out/a.completed.png").exists()
    assert len(complete(trained_run, source, tmp_path / "out", "none", CompleteOptions(max_bad=1)).left_out) == 11


def test_results_and_masks_are_no_pictures(trained_run, drawn, tmp_path, capsys):
    source = faces(drawn, tmp_path / "in")
    Image.new("L", (64, 64), 255).save(source / "b_masked.png")  # a picture, and no hole of b
    for name in ("a_mask", "b_mask001"):
        block((2, 4)).save(source / f"{name}.png")
    for hole in ("block", str(source)):  # the second time the results of the first lie there
        result = complete(trained_run, source, source, hole)
        assert [sheet.name for sheet in result.sheets] == [
            f"{name}.sheet.png" for name in (("a", "b", "b_masked", "c") if hole == "block" else "ab")
        ]
        assert "2 masks beside pictures, such as a_mask.png, are not completed; --hole " in capsys.readouterr().err
    changed = (pixels(source / "b.png") != pixels(source / "b.completed.png")).any(-1)
    assert changed.any() and not changed[np.asarray(block((2, 4))) == 0].any()
    reasons = [reason for _, reason in result.left_out]
    assert "neither b_masked.png nor" in reasons[0] and "neither c.png nor c_mask.png" in reasons[1]


def test_picture_and_hole_are_turned_alike(trained_run, drawn, tmp_path):
    """A photograph with an EXIF orientation gives the picture of its upright copy, under the hole as a viewer shows it."""
    upright = Image.open(min((drawn / "Img/img_celeba").glob("*.jpg"))).crop((0, 0, 360, 360)).resize((64, 64))
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    upright.save(tmp_path / "one/face.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "two/face.png", exif=exif)
    block((0, 40), (64, 64)).save(tmp_path / "hole.png")
    for folder in ("one", "two"):
        complete(trained_run, tmp_path / folder / "face.png", tmp_path / folder, str(tmp_path / "hole.png"))
    assert (tmp_path / "one/face.completed.png").read_bytes() == (tmp_path / "two/face.completed.png").read_bytes()
    assert not Image.open(tmp_path / "two/face.completed.png").getexif()


def test_the_colour_profile_is_kept_and_its_pixels_too(trained_run, drawn, tmp_path):
    """Outside the hole pixels are stored as they were; the network sees sRGB."""
    source = faces(drawn, tmp_path / "in", 1)
    wide = adobe_rgb()
    with Image.open(source / "a.png") as image:
        srgb = image.copy()
    to_wide = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(wide)), "RGB", "RGB", 1
    )
    ImageCms.applyTransform(srgb, to_wide).save(source / "wide.png", icc_profile=wide)
    block((8, 8)).save(tmp_path / "hole.png")
    complete(trained_run, source, tmp_path / "out", str(tmp_path / "hole.png"))
    inside = np.asarray(block((8, 8))) > 0
    done, given = pixels(tmp_path / "out/wide.completed.png"), pixels(source / "wide.png")
    assert (done == given)[~inside].all() and (done != given)[inside].any()
    assert Image.open(tmp_path / "out/wide.completed.png").info["icc_profile"] == wide
    back = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(wide)), ImageCms.createProfile("sRGB"), "RGB", "RGB", 1
    )
    as_srgb = np.asarray(ImageCms.applyTransform(Image.open(tmp_path / "out/wide.completed.png"), back)).astype(int)
    assert np.abs(as_srgb - pixels(tmp_path / "out/a.completed.png")).mean() < 2


@pytest.mark.parametrize(("value", "word"), [(0, "empty"), (255, "full")])
def test_a_hole_of_nothing_or_everything_is_said(value, word, trained_run, drawn, tmp_path, capsys):
    source = faces(drawn, tmp_path / "in", 1)
    Image.new("L", (32, 32), value).save(tmp_path / "hole.png")
    complete(trained_run, source / "a.png", tmp_path / "out", str(tmp_path / "hole.png"))
    assert f"hole.png is {word}" in capsys.readouterr().err


def test_names_of_any_bytes(trained_run, drawn, tmp_path):
    source = faces(drawn, tmp_path / "in", 1)
    shutil.copy(source / "a.png", os.fsencode(source) + b"/caf\351.png")
    assert len(complete(trained_run, source, tmp_path / "out").sheets) == 2


def largest(path: Path, mode: str, **options: object) -> Path:
    """A picture of nearly 64 megapixels that does not compress, of opaque pixels where it has alpha."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (8000, 7999, {"L": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]), np.uint8)
    if mode.endswith("A"):
        pixels[..., -1] = 255
    image = Image.fromarray(pixels.squeeze(), mode)
    if mode == "P":
        image.putpalette(rng.bytes(768))
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 90}),
        *(
            pytest.param(*case, marks=pytest.mark.full)
            for case in [
                ("a.png", "RGB", {"compress_level": 1}),
                ("a.png", "RGBA", {"compress_level": 1}),
                ("a.png", "LA", {"compress_level": 1}),
                ("a.png", "P", {"compress_level": 1}),
                ("a.webp", "RGB", {"quality": 1, "method": 0}),
                ("a.tif", "RGB", {}),
                ("a.tif", "RGB", {"tiffinfo": {274: 3}}),  # upside down
                ("a.bmp", "RGB", {}),
                ("a.avif", "RGB", {"quality": 10, "speed": 10}),
            ]
        ),
    ],
)
def test_the_largest_pictures_and_holes_take_less_than_a_gigabyte(name, mode, options, trained_run, tmp_path):
    """The command in a process of its own, whose peak the kernel tells; the hole is as large, in colour with alpha."""
    picture = largest(tmp_path / name, mode, **options)
    white = np.full((8000, 7999, 4), 255, np.uint8)
    white[..., 3] = np.random.default_rng(2).integers(0, 2, white.shape[:2], np.uint8) * 255
    Image.fromarray(white).save(tmp_path / "hole.png", compress_level=1)
    words = ["complete", trained_run, picture, "--out", tmp_path / "out", "--hole", tmp_path / "hole.png"]
    # A child of a small process: the peak of a child begins with the memory of the one that started it.
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024); sys.exit(done.returncode)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "collagan_dist", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 1000
