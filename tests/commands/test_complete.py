"""`collagan complete` on photographs, as a user runs it; tests/inference/test_complete.py has its parts."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.data.profiles import adobe_rgb


@pytest.fixture
def photo(drawn):
    """(900, 1200, 3): a drawn face among others."""
    face = cv2.resize(cv2.imread(str(min((drawn / "Img/img_celeba").glob("*.jpg"))))[:360, :, ::-1], (800, 800))
    pixels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    pixels[50:850, 300:1100] = face
    return pixels


def painted(shape, left, top, right, bottom):
    hole = np.zeros(shape, bool)
    hole[top:bottom, left:right] = True
    return hole


def save_hole(hole, path):
    Image.fromarray(hole).save(path)
    return path


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_a_photograph_keeps_size_orientation_profile_and_every_pixel_outside(blend, photo, trained, collagan, tmp_path):
    hole = painted((900, 1200), 500, 300, 640, 420)
    exif, profile = Image.Exif(), adobe_rgb()
    exif[0x0112] = 6
    turned = Image.fromarray(photo).transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "photo.jpg", exif=exif, icc_profile=profile, quality=90)
    options = ("--hole", save_hole(hole, tmp_path / "hole.png"), "--blend", blend)
    result = collagan("complete", trained, tmp_path / "photo.jpg", "--out", tmp_path / "out", *options)
    assert result.code == 0 and "pixels of the picture for one of the model" in result.err
    with Image.open(tmp_path / "photo.jpg") as stored, Image.open(tmp_path / "out/photo.completed.png") as done:
        given = np.asarray(ImageOps.exif_transpose(stored))
        assert done.size == (1200, 900) and done.info["icc_profile"] == profile and not done.getexif()
        changed = (np.asarray(done) != given).any(-1)
    assert not changed[~hole].any() and changed[hole].mean() > 0.9
    assert pixels(tmp_path / "out/photo.labels.png").shape == (900, 1200)
    points = np.array(json.loads((tmp_path / "out/photo.landmarks.json").read_text()))
    assert points.shape == (5, 2)


def test_a_hole_larger_than_the_square_is_completed_whole(photo, trained, collagan, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    hole = painted((900, 1200), 100, 100, 1000, 700)
    given = ("--square", "500,300,200", "--hole", save_hole(hole, tmp_path / "hole.png"))
    result = collagan("complete", trained, tmp_path / "photo.png", "--out", tmp_path / "out", *given)
    assert "photo.png: its face square was grown from 200 to " in result.err
    changed = (pixels(tmp_path / "out/photo.completed.png") != photo).any(-1)
    assert not changed[~hole].any() and changed[hole].mean() > 0.9


def test_painted_alpha_is_the_hole(photo, trained, collagan, tmp_path):
    hole = painted((900, 1200), 500, 300, 640, 420)
    alpha = np.where(hole, np.uint8(0), np.uint8(255))
    Image.fromarray(np.dstack([photo, alpha])).save(tmp_path / "photo.png")
    Image.fromarray(photo).save(tmp_path / "plain.png")
    for name in ("photo", "plain"):
        assert collagan("complete", trained, tmp_path / f"{name}.png", "--out", tmp_path, "--hole", "alpha").code == 0
    done = pixels(tmp_path / "photo.completed.png")
    assert done.shape == photo.shape and ((done != photo).any(-1) <= hole).all() and (done != photo)[hole].any()
    np.testing.assert_array_equal(pixels(tmp_path / "plain.completed.png"), photo)
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    result = collagan("complete", trained, tmp_path / "photo.jpg", "--out", tmp_path / "no", "--hole", "alpha")
    assert result.code == 3 and "is a JPEG, which has no transparency" in result.err


def test_a_folder_with_folders_below_and_a_damaged_file(photo, trained, collagan, tmp_path):
    """Results and holes lie in the same folders below; a batch gives what single calls give, within rounding."""
    names = [f"{place}{number}" for place in ("", "a/", "a/b/") for number in range(3)]
    for folder in ("in/a/b", "holes/a/b"):
        (tmp_path / folder).mkdir(parents=True)
    holes = {}
    for n, name in enumerate(names):
        Image.fromarray(photo[: 600 + 10 * n]).save(tmp_path / f"in/{name}.jpg")
        holes[name] = painted((600 + 10 * n, 1200), 480 + 5 * n, 300, 640, 420)
        save_hole(holes[name], tmp_path / f"holes/{name}.png")
    (tmp_path / "in/a/broken.jpg").write_bytes((tmp_path / "in/0.jpg").read_bytes()[:5000])
    call = ("--hole", tmp_path / "holes")
    save_hole(holes["0"], tmp_path / "holes/a/broken.png")
    result = collagan("complete", trained, tmp_path / "in", "--out", tmp_path / "out", *call)
    assert result.code == 0 and "9 completed, 1 left out" in result.out and "a/broken.jpg: damaged" in result.err
    for name in names:
        given, done = pixels(tmp_path / f"in/{name}.jpg"), pixels(tmp_path / f"out/{name}.completed.png")
        assert done.shape == given.shape and not (done != given).any(-1)[~holes[name]].any()
    for number in range(3):
        one, hole = tmp_path / f"in/a/b/{number}.jpg", tmp_path / f"holes/a/b/{number}.png"
        assert collagan("complete", trained, one, "--out", tmp_path / "single", "--hole", hole).code == 0
        paths = tmp_path / f"out/a/b/{number}.completed.png", tmp_path / f"single/{number}.completed.png"
        first, second = (pixels(path).astype(int) for path in paths)
        assert np.abs(first - second).max() <= 1


def test_landmarks_say_where_the_face_is(photo, trained, collagan, tmp_path):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    points = [[600, 400], [760, 400], [680, 480], [620, 560], [740, 560]]
    (tmp_path / "points.json").write_text(json.dumps(points))
    words = ("complete", trained, tmp_path / "photo.png", "--out", tmp_path / "out", "--hole", "O6")
    result = collagan(*words, "--landmarks", tmp_path / "points.json")
    assert "face square of 512 pixels at 424,224: by the given landmarks" in result.err
    rows, columns = np.nonzero((pixels(tmp_path / "out/photo.completed.png") != photo).any(-1))
    assert columns.min() >= 424 and columns.max() < 936 and rows.min() > 480 and rows.max() < 736
    assert collagan(*words, "--square", "1,2").code == 2


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_each_of_several_faces_is_completed(blend, photo, trained, collagan, tmp_path):
    """One hole across two squares, and a kind in each; what is not hole stays bit by bit."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    hole = painted((900, 1200), 250, 300, 900, 420)
    squares = ("--square", "200,200,300", "--square", "700,200,300", "--blend", blend)
    words = ("complete", trained, tmp_path / "photo.png", "--out", tmp_path / "out", *squares)
    result = collagan(*words, "--hole", save_hole(hole, tmp_path / "hole.png"))
    assert "faces a picture: 2 in 1" in result.err and result.err.count("to contain the hole") == 2
    changed = (pixels(tmp_path / "out/photo.completed.png") != photo).any(-1)
    assert not changed[~hole].any() and changed[hole].mean() > 0.9
    assert np.array(json.loads((tmp_path / "out/photo.landmarks.json").read_text())).shape == (2, 5, 2)
    one = tmp_path / "one"
    assert collagan(*words[:4], one, "--square", "200,200,300", "--hole", "block").code == 0
    heights = [pixels(folder / "photo.sheet.png").shape[0] for folder in (tmp_path / "out", one)]
    assert heights[0] - 25 == 2 * (heights[1] - 25)  # a row a face below the heads, with gaps between rows
    assert collagan(*words, "--hole", "block").code == 0
    changed = (pixels(tmp_path / "out/photo.completed.png") != photo).any(-1)
    first, second = (painted((900, 1200), x, 200, x + 300, 500) for x in (200, 700))
    assert changed[first].any() and changed[second].any() and not changed[~(first | second)].any()
    # Each face has a hole of its own name.
    assert not np.array_equal(changed[200:500, 200:500], changed[200:500, 700:1000])


def test_a_file_is_no_folder_for_results(drawn, trained, collagan, tmp_path):
    (tmp_path / "out").touch()
    photo = min((drawn / "Img/img_celeba").glob("*.jpg"))
    result = collagan("complete", trained, photo, "--out", tmp_path / "out", "--hole", "block")
    assert (
        result.code == 2
        and f"{tmp_path}/out: cannot be used as a folder" in result.err
        and "give another --out" in result.err
    )
