import io

import numpy as np
import pytest
from PIL import Image

from collagan_dist.data.readers.hole_file import read_hole, read_painted
from collagan_dist.data.readers.picture import UnusablePicture, read_picture
from collagan_dist.errors import DataError
from tests.data.peak_memory import grown

WHITE = np.zeros((24, 40), bool)
WHITE[4:12, 6:30] = True


def painted(inside, outside=0, dtype=np.uint8) -> Image.Image:
    """The hole WHITE in two values, each a number or a colour."""
    shape = (*WHITE.shape, np.size(inside)) if np.size(inside) > 1 else WHITE.shape
    pixels = np.broadcast_to(np.asarray(outside, dtype), shape).copy()
    pixels[WHITE] = inside
    return Image.fromarray(pixels)


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(WHITE.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def stored(tmp_path, image: Image.Image, form: str = "PNG", **options) -> str:
    image.save(path := tmp_path / "hole", form, **options)
    return str(path)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    "image",
    [
        painted(255), painted(1), painted(200), painted(65535, dtype=np.uint16), painted(255, dtype=np.uint16), painted(1, dtype=np.uint16),
        Image.fromarray(WHITE), painted((255, 255, 255)), painted((255, 0, 0)), palette([0, 0, 0, 255, 0, 0]), palette([0, 0, 0, 255, 255, 255]),
        painted((255, 255, 255, 255), (255, 255, 255, 0)), painted((255, 255, 255, 255), (0, 0, 0, 255)), painted((255, 255), (0, 0)),
    ],
)  # fmt: skip
def test_what_means_a_hole(image, tmp_path):
    assert np.array_equal(read_hole(stored(tmp_path, image)), WHITE)


def test_edges_that_scaling_and_jpeg_blur(tmp_path):
    soft = painted(255).resize((400, 240), Image.Resampling.BICUBIC)
    found = read_hole(stored(tmp_path, soft, "JPEG", quality=75))
    assert (found == np.kron(WHITE, np.ones((10, 10), bool))).mean() > 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_hole_is_turned_as_a_viewer_turns_it(form, orientation, tmp_path):
    """Pillow's transposition is the oracle."""
    big = painted(255).resize((320, 192), Image.Resampling.NEAREST).convert("RGB")
    expected = big.copy()
    expected.getexif()[0x0112] = orientation
    from PIL import ImageOps

    expected = np.array(ImageOps.exif_transpose(expected))[..., 0] > 127
    found = read_hole(stored(tmp_path, big, form, exif=turned(orientation), quality=95))
    assert found.shape == expected.shape and (found == expected).mean() > 0.995


GREY = np.tile(np.linspace(0, 255, 40), (24, 1)).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image.fromarray(GREY), "is grey"), (Image.fromarray(np.dstack([GREY, GREY[::-1], 255 - GREY])), "has colours"),
        (painted((255, 0, 0), (0, 255, 0)), "has colours"), (painted((0, 0, 0, 255), (0, 0, 0, 0)), "what is seen of it is not white"),
        (Image.new("L", (9, 9), 1), "is 1 everywhere"), (Image.new("L", (9, 9), 128), "is grey"),
        (Image.fromarray(np.arange(81, dtype=np.uint8).reshape(9, 9) // 9), "has 9 levels and no white"),
    ],
)  # fmt: skip
def test_what_is_in_doubt_is_refused(image, reason, tmp_path):
    with pytest.raises(DataError, match=rf"hole.*{reason}.*white where the face is to be completed"):
        read_hole(stored(tmp_path, image))


def test_empty_full_damaged_and_no_picture(tmp_path):
    assert not read_hole(stored(tmp_path, Image.new("L", (9, 9)))).any()
    assert read_hole(stored(tmp_path, Image.new("L", (9, 9), 255))).all()
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 2, (99, 99), np.uint8) * 255).save(content, "PNG")
    pages = io.BytesIO()
    Image.new("L", (9, 9)).save(pages, "TIFF", save_all=True, append_images=[Image.new("L", (9, 9), 255)])
    for written, reason in (
        (pages.getvalue(), "has several frames"),
        (content.getvalue()[:600], "damaged, or not"),
        (b"white", "not a picture"),
        (b"", "is an empty file"),
        (b"GIF89a", "is GIF"),
    ):
        (tmp_path / "bad").write_bytes(written)
        with pytest.raises(DataError, match=f"as a hole.*{reason}"):
            read_hole(str(tmp_path / "bad"))


def test_a_bomb_is_refused_from_its_header(tmp_path):
    path = stored(tmp_path, Image.new("1", (20000, 20000)))
    assert grown("hole_file.read_hole(sys.argv[1])", "DataError", path) < 60


def drawn_hole(at: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """A picture of any mode with a few values of any kind, and its (H, W, 4) colours as a viewer knows them, 0 to 255."""
    mode, few = at.choice(["1", "L", "P", "RGB", "RGBA", "LA", "I;16"]), int(at.integers(1, 4))
    where = at.integers(0, few, (12, 9))
    values = at.choice([0, 0, 1, 3, 63, 64, 90, 128, 200, 254, 255, 255], (few, 4))
    if at.random() < 0.5:  # most holes are grey
        values[:, 1] = values[:, 2] = values[:, 0]
    if mode in ("1", "L", "I;16"):
        grey = (values[:, 0] > 127) * 255 if mode == "1" else values[:, 0]
        image = (
            Image.fromarray(grey[where].astype(np.uint16) * 257)
            if mode == "I;16"
            else Image.fromarray(grey[where].astype(np.uint8))
        )
        values[:, :3], values[:, 3] = grey[:, None], 255
        return image.convert("1") if mode == "1" else image, values[where]
    if mode == "P":
        values[:, 3] = 255
        image = Image.fromarray(where.astype(np.uint8), "P")
        image.putpalette(values[:, :3].astype(np.uint8).ravel().tolist())
        return image, values[where]
    if mode == "LA":
        values[:, 1] = values[:, 2] = values[:, 0]
    elif mode == "RGB":
        values[:, 3] = 255
    channels = {"RGB": [0, 1, 2], "RGBA": [0, 1, 2, 3], "LA": [0, 3]}[mode]
    return Image.fromarray(values[where][..., channels].astype(np.uint8), mode), values[where]


def meaning(colours: np.ndarray) -> np.ndarray:
    """Inside: what is seen and not black. Each colour on its own is looked at, so grey levels count by their brightest channel."""
    seen, bright = colours[..., 3] > 127, colours[..., :3].max(-1)
    kinds = {tuple(colour[:3]) for colour in colours.reshape(-1, 4).tolist()}
    two = len(kinds) == 2 and (0, 0, 0) in kinds
    levels = set(bright.ravel().tolist())
    return ((bright > 0) if two or (len(levels) == 2 and 0 in levels) else bright > 127) & seen


@pytest.mark.parametrize("rounds", [500, pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_any_hole_is_understood_or_refused(rounds, form, tmp_path):
    at, refused = np.random.default_rng(rounds), 0
    for number in range(rounds):
        image, colours = drawn_hole(at)
        path = stored(tmp_path, image, form)
        try:
            found = read_hole(path)
        except DataError as error:
            assert "hole" in str(error), number
            refused += 1
            continue
        assert np.array_equal(found, meaning(colours)), (number, image.mode)
    assert 0.2 * rounds < refused < 0.8 * rounds


def rgba(alpha):
    """A picture of 40x48 under an alpha, and its colours."""
    colours = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    return Image.fromarray(np.dstack([colours, alpha])), colours


def split(folder, image, **options):
    return read_painted(read_picture(stored(folder, image, **options), upright=True))


def test_what_is_not_opaque_in_a_picture_is_hole(tmp_path):
    alpha = np.full((40, 48), 255, np.uint8)
    alpha[4:12, 6:30], alpha[12, 6:30] = 0, 200  # with a soft border
    image, colours = rgba(alpha)
    pixels, hole, profile = split(tmp_path, image)
    assert np.array_equal(pixels, colours) and np.array_equal(hole, alpha < 255) and profile is None
    pixels, hole, _ = split(tmp_path, image, exif=turned(6))
    assert np.array_equal(pixels, np.rot90(colours, -1)) and np.array_equal(hole, np.rot90(alpha < 255, -1))
    assert not split(tmp_path, Image.fromarray(colours))[1].any()


def test_alpha_whose_meaning_is_in_doubt_is_refused(tmp_path):
    faint = np.full((40, 48), 254, np.uint8)
    for alpha, reason in ((faint, "is 1 everywhere"), (faint // 2, "is grey")):
        with pytest.raises(UnusablePicture, match=reason):
            split(tmp_path, rgba(alpha)[0])
    with pytest.raises(UnusablePicture, match="is a JPEG, which has no transparency"):
        read_painted(read_picture(stored(tmp_path, Image.new("RGB", (40, 40)), "JPEG")))
