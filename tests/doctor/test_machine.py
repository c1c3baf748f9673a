import resource
import shutil

from collagan_dist.distributed import versions
from collagan_dist.doctor import machine


def test_known_bad_and_missing_libraries(monkeypatch):
    installed = {"torch": "2.9.1+cpu", "dali": "2.4.0", "numpy": "2.4.6", "deepspeed": None, "ray": None}
    monkeypatch.setattr(versions, "library_version", installed.get)
    (found,) = machine.check_libraries()
    assert found.state == "failed" and "torch below 2.10" in found.text and "ray not installed" in found.text
    installed["torch"] = "2.10.0"
    assert [finding.state for finding in machine.check_libraries()] == ["ok"]
    installed["dali"] = None
    assert [finding.state for finding in machine.check_libraries()] == ["failed"]


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
