import json

import pytest

from collagan_dist.data.shards.manifest import Manifest
from tests.distributed.exact_ranks import STEPS
from tests.launch import torchrun

Losses = dict[str, list[dict[str, float]]]


@pytest.fixture(scope="module")
def found(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Losses]:
    """Losses by world size, by what batch normalization spans."""
    folder = tmp_path_factory.mktemp("sizes")
    for size in (1, 2, 4):
        done = torchrun(size, "-m", "--", "tests.distributed.exact_ranks", shards.folder, folder / f"{size}.json")
        assert done.returncode == 0, done.stdout + done.stderr
    return {size: json.loads((folder / f"{size}.json").read_text()) for size in (1, 2, 4)}


def difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """The largest relative difference of a loss in any step; shares of patches and norms are not losses."""
    assert len(one) == len(other) == STEPS
    pairs = [(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a if n.startswith("loss/")]
    assert pairs and all(a.keys() == b.keys() for a, b in zip(one, other, strict=True))
    return max(abs(a - b) / abs(a) for a, b in pairs)


@pytest.mark.parametrize("way", ["over all ranks", "frozen"])
@pytest.mark.parametrize("size", [2, 4])
def test_losses_are_those_of_one_rank(found, size, way):
    """With batch normalization over all ranks, or frozen: within 1e-9."""
    assert difference(found[1][way], found[size][way]) < 1e-9


@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_a_batch_are_like_ranks(found, size):
    """Half the ranks in two parts each learn what twice as many do: batch statistics are those of the same samples."""
    assert difference(found[size]["per rank, in two parts"], found[2 * size]["per rank"]) < 1e-9


def test_batch_normalization_per_rank_is_another_training(found):
    """What docs/architecture.md says it changes: a tenth of a percent and more within ten steps."""
    assert all(difference(found[1]["per rank"], found[size]["per rank"]) > 1e-3 for size in (2, 4))
