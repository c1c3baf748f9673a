import sys
import types

import pytest

import collagan_dist
from collagan_dist.callable_package import make_callable


def test_a_package_is_called_as_the_function_of_its_name(monkeypatch):
    name = "collagan_dist.draw"
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name, "what it is"))
    make_callable(name)
    package = sys.modules[name]
    with pytest.raises(collagan_dist.errors.ConfigError, match="the count must be at least 1"):
        package("faces", count=0)
    assert package.__doc__ == "what it is" and package.__name__ == name
