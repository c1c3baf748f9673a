"""Fixtures of tests of the training loop."""

from tests.models.conftest import parser

__all__ = ["parser"]
