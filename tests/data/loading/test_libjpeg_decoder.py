import numpy as np
import pytest
import simplejpeg
import torch

from collagan_dist.data.loading.dali_pipeline import DaliPipeline
from collagan_dist.data.loading.libjpeg_decoder import LibjpegDecoder

CPU = torch.device("cpu")


def pictures(count: int, shape: tuple[int, int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noise of several scales as JPEGs with and without subsampled colours, and label maps of the same size."""
    draws = np.random.default_rng(0)
    jpgs, labels = [], []
    for number in range(count):
        height, width = shape[0] + 7 * number, shape[1] + 5 * number
        coarse = draws.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
        pixels = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width] + draws.normal(0, 6, (height, width, 3))
        content = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels.clip(0, 255).astype(np.uint8)), 90, "RGB", ("444", "420")[number % 2]
        )
        jpgs.append(np.frombuffer(content, np.uint8))
        labels.append(draws.integers(0, 11, (height, width)).astype(np.uint8))
    return jpgs, labels


@pytest.mark.parametrize("threads", [1, 3])
def test_regions_of_pictures_as_dali_shows_them(threads):
    """Enlarged and made smaller, at fractions of pixels: pictures within two grey levels, label maps equal."""
    jpgs, labels = pictures(6, (90, 120))
    regions = np.array([[0.0, 0.0, 90.0, 120.0], [3.25, 10.5, 70.75, 78.0], [20.3, 33.3, 44.4, 57.4]] * 2, np.float32)
    dali = DaliPipeline(6, 64, True, True, 1, CPU)(jpgs, regions, labels)
    ours = LibjpegDecoder(64, True, threads)(jpgs, regions, labels)
    difference = (dali[0].int() - ours[0].int()).abs()
    assert ours[0].shape == dali[0].shape and difference.max() <= 2 and difference.float().mean() < 0.3
    assert torch.equal(dali[1], ours[1])


def test_whole_pictures_as_dali_decodes_them():
    jpgs = [pictures(2, (96, 96))[0][number] for number in (0, 0)] + [pictures(2, (89, 91))[0][1]]
    dali = DaliPipeline(3, 96, False, False, 1, CPU)(jpgs, np.zeros((3, 4)), [])
    ours = LibjpegDecoder(96, False, 2)(jpgs, np.zeros((3, 4)), [])
    assert len(ours) == 1 and (dali[0].int() - ours[0].int()).abs().max() <= 2


def test_what_does_not_decode_is_an_error():
    jpgs = pictures(2, (96, 96))[0]
    decode = LibjpegDecoder(96, False, 1)
    with pytest.raises(RuntimeError, match="different sizes"):
        decode(jpgs, np.zeros((2, 4)), [])
    with pytest.raises(RuntimeError):
        decode([jpgs[0][:5]], np.zeros((1, 4)), [])
