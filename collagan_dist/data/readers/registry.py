"""The table of readers: for each value of a recipe's `dataset`, the function that lists the samples of such a data set."""

from __future__ import annotations

from collections.abc import Callable

from collagan_dist.data.readers.celeba import read_aligned, read_in_the_wild
from collagan_dist.data.readers.celebamask_hq import read_celebamask_hq
from collagan_dist.data.readers.folder import read_folder
from collagan_dist.data.readers.recipe import Recipe
from collagan_dist.data.readers.samples import Samples

READERS: dict[str, Callable[[Recipe], Samples]] = {
    "celeba": read_in_the_wild,
    "celeba_aligned": read_aligned,
    "celebamask_hq": read_celebamask_hq,
    "folder": read_folder,
}
