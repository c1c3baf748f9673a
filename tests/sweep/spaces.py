"""Spaces of a few lines, for tests."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from collagan_dist.config.load import load_config
from collagan_dist.sweep.space import Space, read_space

LR = "space: {optim.generator.lr: {loguniform: [1e-5, 0.1]}}"


def space(text: str, preset: str = "stable", model: str | None = None, sets: Sequence[str] = ()) -> Space:
    """The space of a file sweep.yaml with this text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "sweep.yaml"
        path.write_text(text)
        return read_space(str(path), load_config(preset, model, sets))
