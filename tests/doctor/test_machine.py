import resource
import shutil

import pytest

from collagan_dist.distributed import versions
from collagan_dist.doctor import machine
from tests.distributions import install


def test_missing_libraries(monkeypatch):
    installed = {"torch": "2.13.0+cpu", "dali": "2.4.0", "numpy": "2.4.6", "deepspeed": None, "ray": None}
    monkeypatch.setattr(versions, "library_version", installed.get)
    (found,) = machine.check_libraries()
    assert found.state == "ok" and "ray not installed" in found.text
    installed["dali"] = None
    assert [finding.state for finding in machine.check_libraries()] == ["failed"]


def test_each_library_outside_the_bounds_has_a_line(tmp_path, monkeypatch):
    install(tmp_path, "collagan_dist", "0.1.0", "torch>=2.10", "numpy>=2.0", "ray>=2.52; extra == 'ray'")
    for name, version in (("torch", "2.9.1+cpu"), ("numpy", "2.0.0"), ("ray", "2.51.0")):
        install(tmp_path, name, version)
    monkeypatch.syspath_prepend(tmp_path)
    torch, ray = [finding for finding in machine.check_libraries() if finding.state == "failed"]
    assert (torch.check, torch.mend) == ("torch", "pip install 'torch>=2.10'") and "2.9.1+cpu" in torch.text
    assert (ray.check, ray.mend) == ("ray", "pip install 'ray>=2.52'") and "for anybody who reaches them" in ray.text


def test_few_open_files_and_little_shared_memory(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    (found,) = machine.check_limits()
    assert (found.state, found.mend) == ("warning", "ulimit -n 4096") and found.text.startswith("1024 open files")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (64 << 20, 0, 64 << 20))  # docker's default
    (found,) = machine.check_shared_memory()
    assert found.state == "warning" and "--shm-size" in found.mend


def test_a_picture_that_is_decoded_wrong(monkeypatch):
    monkeypatch.setattr(machine, "_MAX_DECODING_ERROR", -1)
    (found,) = machine.check_decoding()
    assert found.state == "failed" and "grey levels away" in found.text


@pytest.mark.parametrize(
    ("driver", "wheel", "mend"),
    [
        ("580.65.06", "nvidia-dali-cuda130", None),
        ("575.57.08", "nvidia-dali-cuda130", "pip uninstall nvidia-dali-cuda130; pip install nvidia-dali-cuda120"),
        ("575.57.08", "nvidia-dali-cuda120", None),
        ("470.1", "nvidia-dali-cuda120", "update the driver"),
        ("unknown", "nvidia-dali-cuda130", None),
        ("575.57.08", None, None),
    ],
)
def test_a_driver_older_than_dali_s_wheel_needs(driver, wheel, mend):
    found = list(machine.check_driver(driver, wheel))
    assert [one.mend for one in found] == ([mend] if mend else [])
    assert all(one.state == "failed" and driver in one.text for one in found)
