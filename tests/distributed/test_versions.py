import platform

import numpy as np

import collagan_dist
from collagan_dist.distributed import versions


def test_versions_of_libraries_and_of_the_package(monkeypatch):
    assert versions.library_version("numpy") == np.__version__
    monkeypatch.setitem(versions.LIBRARIES, "dali", ("no-such-distribution", "numpy"))
    assert versions.library_version("dali") == np.__version__  # any one of the distributions
    monkeypatch.setitem(versions.LIBRARIES, "dali", ("no-such-distribution",))
    assert versions.library_version("dali") is None
    assert platform.python_version().startswith(versions.python_version())
    assert versions.code_version().startswith(f"{collagan_dist.__version__} (")
