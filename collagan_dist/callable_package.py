"""Lets a package of the same name as a function of collagan_dist.api be called as that function: `report`, `runs`."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # By name: api stands above the packages that it calls.
        api = importlib.import_module("collagan_dist.api")
        return getattr(api, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(package: str) -> None:
    """Make the imported package `collagan_dist.NAME` callable: a call is one of collagan_dist.api.NAME."""
    # Importing a package sets its name in the parent, over whatever function stood there. So the package itself is called.
    sys.modules[package].__class__ = _CallablePackage
