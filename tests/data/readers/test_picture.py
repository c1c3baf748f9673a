import io
import random

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.readers.picture import Picture, UnusablePicture, read_picture
from tests.data.peak_memory import grown, saved


def photo(size: int = 96) -> np.ndarray:
    """A smooth picture with some grain, so that files are neither tiny nor noise."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:size, :size] / size
    waves = np.stack([np.sin(9 * x + k) * np.cos(7 * y - k) for k in range(3)], -1)
    return np.clip(128 + 90 * waves + rng.normal(0, 6, (size, size, 3)), 0, 255).astype(np.uint8)


def jpegs() -> list[bytes]:
    """Baseline and progressive, 4:4:4 and 4:2:0, with and without restart markers."""
    result = []
    for progressive in (False, True):
        for subsampling in (0, 2):
            for restart in ({}, {"restart_marker_rows": 1}):
                file = io.BytesIO()
                options = {"quality": 85, "progressive": progressive, "subsampling": subsampling, **restart}
                Image.fromarray(photo()).save(file, "JPEG", **options)
                result.append(file.getvalue())
    return result


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, overwritten, lengthened or shortened somewhere."""
    data = bytearray(content)
    places = [rng.randrange(2, len(data)) for _ in range(rng.choice((1, 1, 2, 8)))]
    kind = rng.randrange(5)
    if kind == 0:
        del data[places[0] :]
    elif kind == 1:
        for place in places:
            data[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        for place in places:
            data[place] = rng.randrange(256)
    elif kind == 3:
        data[places[0] : places[0]] = rng.randbytes(rng.choice((1, 2, 16)))
    else:
        del data[places[0] : places[0] + rng.choice((1, 2, 50))]
    return bytes(data)


def verdict(look) -> str | None:  # type: ignore[no-untyped-def]
    try:
        look()
    except UnusablePicture as error:
        return str(error)
    return None


def test_the_small_decode_judges_as_the_full_one(tmp_path):
    rng, files, path = random.Random(8), jpegs(), tmp_path / "x.jpg"
    judged = {True: 0, False: 0}
    for number in range(2500):
        path.write_bytes(damaged(files[number % len(files)], rng))
        try:
            picture = read_picture(str(path))
        except UnusablePicture:
            continue
        if picture.colours != "YCbCr":
            continue
        # Without the look at its last bytes, which both ways share.
        sealed = Picture(picture.content + b"\xff\xd9", picture.width, picture.height, picture.colours)
        full = verdict(lambda p=sealed: p.pixels_HW3)
        assert verdict(sealed.as_jpeg) == full
        judged[full is None] += 1
    assert min(judged.values()) > 400, judged


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_what_is_kept_and_what_is_converted(tmp_path):
    """A plain JPEG keeps its bytes; grey, palette, 16-bit colour, an EXIF orientation and other formats are written anew."""
    pixels = photo()
    image = Image.fromarray(pixels)
    plain = saved(tmp_path, image, "plain.jpg", quality=95)
    assert read_picture(str(plain)).as_jpeg() == (plain.read_bytes(), False)
    grey = pixels[..., 0]
    palette = image.quantize(64)
    cases = {
        saved(tmp_path, image, "a.png"): pixels,
        saved(tmp_path, image, "a.bmp"): pixels,
        saved(tmp_path, image, "a.tif"): pixels,
        saved(tmp_path, image, "a.webp", lossless=True): pixels,
        saved(tmp_path, Image.fromarray(grey), "grey.png"): np.repeat(grey[..., None], 3, -1),
        saved(tmp_path, palette, "palette.png"): np.array(palette.convert("RGB")),
    }
    (tmp_path / "16.png").write_bytes(png16(pixels))
    cases[tmp_path / "16.png"] = pixels
    for path, expected in cases.items():
        picture = read_picture(str(path))
        assert np.array_equal(picture.pixels_HW3, expected), path
        assert (picture.height, picture.width) == expected.shape[:2]
        jpeg, anew = picture.as_jpeg()
        assert anew and np.abs(np.array(Image.open(io.BytesIO(jpeg))).astype(int) - expected).mean() < 4
    exif = saved(tmp_path, image, "turned.jpg", quality=95, exif=turned())
    sideways = read_picture(str(exif))
    assert np.array_equal(sideways.pixels_HW3, np.array(Image.open(exif))) and sideways.as_jpeg()[1]
    assert not Image.open(io.BytesIO(sideways.as_jpeg()[0])).getexif()
    gray = read_picture(str(saved(tmp_path, Image.fromarray(grey), "grey.jpg")))
    assert gray.pixels_HW3.shape == (96, 96, 3) and gray.as_jpeg()[1]


def png16(pixels: np.ndarray) -> bytes:
    import cv2

    low = np.random.default_rng(1).integers(0, 256, pixels.shape)
    return cv2.imencode(".png", (pixels[..., ::-1].astype(np.uint16) * 256 + low).astype(np.uint16))[1].tobytes()


def test_what_is_refused(tmp_path):
    image = Image.fromarray(photo())
    see_through = image.quantize(16)
    see_through.info["transparency"] = 3
    cases = {
        saved(tmp_path, image.convert("CMYK"), "cmyk.jpg"): "wrong mode CMYK",
        saved(tmp_path, image.convert("CMYK"), "cmyk.tif"): "wrong mode CMYK",
        saved(tmp_path, image.convert("RGBA"), "rgba.png"): "wrong mode RGBA",
        saved(tmp_path, image.convert("LA"), "la.png"): "wrong mode LA",
        saved(tmp_path, image.convert("L").convert("I;16"), "grey16.png"): "wrong mode I;16",
        saved(tmp_path, see_through, "hole.png", transparency=3): "wrong mode P with transparency",
        saved(tmp_path, image.resize((31, 96)), "thin.png"): "31x96 pixels are smaller than 32x32",
        saved(tmp_path, Image.new("1", (9000, 9000)), "bomb.png"): "wrong mode 1",
        saved(tmp_path, Image.new("L", (9000, 9000)), "bomb8.png"): "a decompression bomb",
        saved(tmp_path, Image.new("L", (14000, 14000)), "bomb14.png"): "a decompression bomb",
        saved(tmp_path, image, "a.gif"): "not a picture",
    }
    (tmp_path / "cut.png").write_bytes((saved(tmp_path, image, "a.png")).read_bytes()[:9000])
    cases[tmp_path / "cut.png"] = "damaged"
    for path, reason in cases.items():
        with pytest.raises(UnusablePicture) as caught:
            read_picture(str(path)).as_jpeg()
        assert reason in str(caught.value), path


def test_a_jpeg_bomb_is_refused_from_its_header(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (12000, 12000)), "bomb.jpg", quality=5)
    assert grown("picture.read_picture(sys.argv[1])", "picture.UnusablePicture", path) < 50
