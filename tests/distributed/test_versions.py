import platform
import re
import tomllib

import numpy as np
import pytest
from packaging.requirements import Requirement

import collagan_dist
from collagan_dist.distributed import versions
from tests.conftest import ROOT
from tests.distributions import install

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]


def test_versions_of_libraries_and_of_the_package(monkeypatch):
    assert versions.library_version("numpy") == np.__version__
    monkeypatch.setitem(versions.LIBRARIES, "dali", ("no-such-distribution", "numpy"))
    assert versions.library_version("dali") == np.__version__  # any one of the distributions
    monkeypatch.setitem(versions.LIBRARIES, "dali", ("no-such-distribution",))
    assert versions.library_version("dali") is None
    assert platform.python_version().startswith(versions.python_version())
    assert versions.code_version().startswith(f"{collagan_dist.__version__} (")


@pytest.mark.parametrize(
    ("installed", "needed", "outside"),
    [
        ("1.26.4", ">=2.0", ["numpy 1.26.4 is installed, numpy>=2.0 is needed"]),
        ("2.0.0", ">=2.0", []),
        ("2.0.0a0+6ac8a2e", ">=2.0", []),  # as vendors call their builds
        ("3.0.1+cpu", ">=2.0,<3", ["numpy 3.0.1+cpu is installed, numpy<3,>=2.0 is needed"]),
        ("nobody knows", ">=2.0", []),
    ],
)
def test_an_installed_library_outside_the_bounds(installed, needed, outside, tmp_path, monkeypatch):
    install(tmp_path, "collagan_dist", "0.1.0", f"numpy{needed}", "no-such-distribution>=1")
    install(tmp_path, "numpy", installed)
    monkeypatch.syspath_prepend(tmp_path)
    found = versions.outside_bounds(extras=False)
    assert [str(one) for one in found] == outside
    assert all(one.mend.startswith("pip install 'numpy") for one in found)


def test_libraries_of_extras_count_where_they_are_asked_for(tmp_path, monkeypatch):
    lines = ("ray>=2.52; extra == 'sweep'", "ruff>=9; extra == 'dev'", "torch>=2.10; sys_platform == 'nowhere'")
    install(tmp_path, "collagan_dist", "0.1.0", *lines)
    for name in ("ray", "ruff", "torch"):
        install(tmp_path, name, "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    assert versions.outside_bounds(extras=False) == []
    assert [one.name for one in versions.outside_bounds(extras=True)] == ["ray"]  # tools of developers never do


def test_dali_counts_always_whichever_its_wheel(tmp_path, monkeypatch):
    """It is in an extra because there is one wheel for each CUDA, but every installation has one of them."""
    lines = ("nvidia-dali-cuda130>=2.2; extra == 'cuda13'", "nvidia-dali-cuda120>=2.2; extra == 'cuda12'")
    install(tmp_path, "collagan_dist", "0.1.0", *lines)
    install(tmp_path, "nvidia-dali-cuda120", "1.9")
    monkeypatch.syspath_prepend(tmp_path)
    assert [str(one) for one in versions.outside_bounds(extras=False)] == [
        "nvidia-dali-cuda120 1.9 is installed, nvidia-dali-cuda120>=2.2 is needed"
    ]


def test_every_dependency_has_a_tested_lower_bound():
    """And the pinned versions, those that are tested most, lie inside."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line)
    assert not {"numpy", "torch", "packaging"} - pins.keys()
    for requirement in map(Requirement, ALL):
        if requirement.name != "collagan_dist":
            assert re.fullmatch(r">=\d[\d.]*", str(requirement.specifier)), requirement
            assert requirement.name not in pins or requirement.specifier.contains(pins[requirement.name]), requirement
