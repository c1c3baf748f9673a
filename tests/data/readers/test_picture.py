import io
import itertools
import os
import random
from collections import Counter
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from collagan_dist.data.readers.picture import UnusablePicture, read_picture, resize_nearest, turn_upright
from tests.data.peak_memory import grown, saved
from tests.data.profiles import adobe_rgb
from tests.faults.damages import cut, damage, drop, flip, grow


def photo(size: int = 96) -> np.ndarray:
    """A smooth picture with some grain, so that files are neither tiny nor noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(9 * x + k) * np.cos(7 * y - k) for k in range(3)], -1)
    return np.clip(128 + 90 * waves + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8)


def jpegs() -> list[bytes]:
    """Baseline and progressive, 4:4:4 and 4:2:0, with and without restart markers."""
    result = []
    for progressive, subsampling, rows in itertools.product((False, True), (0, 2), (0, 1)):
        file = io.BytesIO()
        options = {"progressive": progressive, "subsampling": subsampling, "restart_marker_rows": rows}
        Image.fromarray(photo()).save(file, "JPEG", quality=85, **options)
        result.append(file.getvalue())
    return result


def verdict(decode: Callable[[], object]) -> str | None:
    try:
        decode()
    except UnusablePicture as error:
        return str(error)
    return None


def test_the_small_decode_judges_as_the_full_one(tmp_path):
    rng, files, path = random.Random(8), jpegs(), tmp_path / "x.jpg"
    judged = Counter()
    for number in range(1500):
        path.write_bytes(files[number % len(files)])
        damage(path, rng.choice((cut, flip, drop, grow)), rng)
        # With the bytes that end a JPEG, which both ways look at.
        path.write_bytes(path.read_bytes() + b"\xff\xd9")
        if verdict(lambda: read_picture(str(path))) is None and (picture := read_picture(str(path))).colours == "YCbCr":
            full = verdict(lambda p=picture: p.pixels_HW3)
            assert verdict(picture.as_jpeg) == full
            judged[full is None] += 1
    assert min(judged.values()) > 300, judged


def test_what_is_kept_and_what_is_converted(tmp_path):
    """A plain JPEG keeps its bytes; grey, palette, 16-bit colour, an EXIF orientation and other formats are written anew."""
    pixels = photo()
    image, grey = Image.fromarray(pixels), np.repeat(pixels[..., :1], 3, -1)
    plain = saved(tmp_path, image, "plain.jpg", quality=95)
    assert read_picture(str(plain)).as_jpeg() == (plain.read_bytes(), False)
    orientation = Image.Exif()
    orientation[0x0112] = 6
    turned = saved(tmp_path, image, "turned.jpg", quality=95, exif=orientation)
    low_bytes = np.random.default_rng(1).integers(0, 256, pixels.shape)
    cv2.imwrite(str(tmp_path / "16.png"), (pixels[..., ::-1].astype(np.uint16) * 256 + low_bytes).astype(np.uint16))
    cases = {
        saved(tmp_path, image, "a.png"): pixels,
        saved(tmp_path, image, "a.bmp"): pixels,
        saved(tmp_path, image, "a.tif"): pixels,
        saved(tmp_path, image, "a.webp", lossless=True): pixels,
        saved(tmp_path, Image.fromarray(grey[..., 0]), "grey.png"): grey,
        saved(tmp_path, image.quantize(64), "palette.png"): np.array(image.quantize(64).convert("RGB")),
        tmp_path / "16.png": pixels,
        turned: np.array(Image.open(turned)),
        saved(tmp_path, Image.fromarray(grey[..., 0]), "grey.jpg", quality=100): grey,
        saved(tmp_path, with_alpha(image, 255), "opaque.png"): pixels,
        saved(tmp_path, image, "a.heic", quality=100): np.array(
            Image.open(saved(tmp_path, image, "b.heic", quality=100))
        ),
        saved(tmp_path, image, "a.avif", quality=100): np.array(
            Image.open(saved(tmp_path, image, "b.avif", quality=100))
        ),
    }
    for path, expected in cases.items():
        picture = read_picture(str(path))
        lossless = path.name != "grey.jpg"
        assert np.abs(picture.pixels_HW3.astype(int) - expected).max() <= (0 if lossless else 4), path
        assert (picture.height, picture.width) == expected.shape[:2]
        jpeg, anew = picture.as_jpeg()
        again = Image.open(io.BytesIO(jpeg))
        assert anew and np.abs(np.array(again).astype(int) - expected).mean() < 4 and not again.getexif()


def with_alpha(image: Image.Image, value: int) -> Image.Image:
    """The image with one pixel of this opacity, the others opaque."""
    alpha = Image.new("L", image.size, 255)
    alpha.putpixel((5, 7), value)
    return Image.merge(f"{image.mode}A", [*image.split(), alpha])


def test_what_is_refused(tmp_path):
    image = Image.fromarray(photo())
    see_through = image.quantize(16)
    see_through.info["transparency"] = 3
    cases = {
        saved(tmp_path, image.convert("CMYK"), "cmyk.jpg"): "wrong mode CMYK",
        saved(tmp_path, image.convert("CMYK"), "cmyk.tif"): "wrong mode CMYK",
        saved(tmp_path, with_alpha(image, 254), "rgba.png"): "wrong mode RGBA with transparency",
        saved(tmp_path, with_alpha(image.convert("L"), 254), "la.png"): "wrong mode LA with transparency",
        saved(tmp_path, image, "two.webp", save_all=True, append_images=[ImageOps.invert(image)]): "has several frames",
        saved(tmp_path, image, "two.tif", save_all=True, append_images=[image]): "has several frames",
        saved(tmp_path, image.convert("L").convert("I;16"), "grey16.png"): "wrong mode I;16",
        saved(tmp_path, see_through, "hole.png", transparency=3): "wrong mode P with transparency",
        saved(tmp_path, image.resize((31, 96)), "thin.png"): "31x96 pixels are smaller than 32x32",
        saved(tmp_path, Image.new("1", (9000, 9000)), "bomb.png"): "a decompression bomb",
        saved(tmp_path, Image.new("L", (9000, 9000)), "bomb8.png"): "a decompression bomb",
        saved(tmp_path, Image.new("L", (14000, 14000)), "bomb14.png"): "a decompression bomb",
        saved(tmp_path, image, "a.gif"): "is GIF, which is not read; convert it",
    }
    os.truncate(cut_short := saved(tmp_path, image, "cut.png"), 9000)
    cases[cut_short] = "damaged"
    for path, reason in cases.items():
        with pytest.raises(UnusablePicture) as caught:
            read_picture(str(path)).as_jpeg()
            pytest.fail(str(path))
        assert reason in str(caught.value), path


def test_a_jpeg_bomb_is_refused_from_its_header(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (12000, 12000)), "bomb.jpg", quality=5)
    assert grown("picture.read_picture(sys.argv[1])", "picture.UnusablePicture", path) < 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_only_on_request(form, orientation, tmp_path):
    """Pillow's own transposition is the oracle."""
    image = Image.fromarray(photo()[:64])
    exif = image.getexif()
    exif[0x0112] = orientation
    # First: saving takes the orientation out of the image.
    expected = {True: np.array(ImageOps.exif_transpose(image)), False: photo()[:64]}
    path = str(saved(tmp_path, image, "x", format=form, exif=exif, quality=98))
    for upright in (True, False):
        picture = read_picture(path, upright)
        found = picture.pixels_HW3
        assert found.shape == expected[upright].shape == (picture.height, picture.width, 3)
        others = [turn_upright(expected[upright], other) for other in range(2, 9)]
        errors = [np.abs(found.astype(int) - one).mean() for one in others if one.shape == found.shape]
        assert np.abs(found.astype(int) - expected[upright]).mean() < min(errors) / 2


def test_colours_of_a_profile_become_srgb(tmp_path):
    """By littleCMS as ImageCms calls it; a profile that says sRGB changes nothing, nor does one that is damaged."""
    srgb, lab = (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")),
    )
    image = Image.fromarray(photo())
    for profile in (srgb.tobytes(), lab.tobytes(), b"damaged"):
        plain = saved(tmp_path, image, "x.jpg", quality=95, icc_profile=profile)
        assert read_picture(str(plain)).as_jpeg() == (plain.read_bytes(), False)
    wide = ImageCms.ImageCmsProfile(io.BytesIO(adobe_rgb()))
    for name in ("x.jpg", "x.png"):
        picture = read_picture(str(saved(tmp_path, image, name, icc_profile=wide.tobytes())))
        expected = ImageCms.profileToProfile(Image.fromarray(picture.unconverted_HW3), wide, srgb, 1, flags=0x2000)
        assert np.array_equal(picture.pixels_HW3, np.array(expected)) and picture.as_jpeg()[1]
        assert np.abs(picture.pixels_HW3.astype(int) - picture.unconverted_HW3).max() > 10


@pytest.mark.parametrize("size", [7, 100, 333, 1500])
def test_borders_stay_where_they_are(size):
    """Each pixel of a resized hole or label map has the value at its centre, so a mirrored one is the mirror image."""
    hole = np.zeros((1000, 1000), bool)
    hole[:, :696] = True
    found = resize_nearest(hole, (size, size))
    assert found.sum(1).tolist() == [np.count_nonzero((np.arange(size) + 0.5) * 1000 / size < 696)] * size
    assert np.array_equal(resize_nearest(hole[:, ::-1], (size, size)), found[:, ::-1])


def test_an_orientation_behind_64_kb_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = saved(tmp_path, Image.fromarray(photo()), "a.jpg", quality=95, exif=exif).read_bytes()
    long = b"\xff\xed" + (65_535).to_bytes(2, "big") + bytes(65_533)  # an APP13 before it, as Photoshop writes it
    (tmp_path / "b.jpg").write_bytes(content[:2] + long * 2 + content[2:])
    picture = read_picture(str(tmp_path / "b.jpg"), upright=True)
    jpeg, reencoded = picture.as_jpeg()
    assert reencoded and Image.open(io.BytesIO(jpeg)).size == (picture.width, picture.height) == photo().shape[:2]


@pytest.mark.parametrize("profile", [7, "text", 0.5])
def test_a_tiff_with_something_else_for_a_profile(tmp_path, profile):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[34675] = profile
    tags.tagtype[34675] = {int: 4, str: 2, float: 12}[type(profile)]
    path = saved(tmp_path, Image.fromarray(photo()), "a.tif", tiffinfo=tags)
    assert np.array_equal(read_picture(str(path)).pixels_HW3, photo())
