"""Fixtures of tests of the training loop."""

from __future__ import annotations

from tests.models.conftest import parser

__all__ = ["parser"]
