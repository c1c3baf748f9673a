import os
import subprocess
import time

from collagan_dist.doctor import jit_locks


def test_row_18_a_lock_of_a_killed_compilation(tmp_path, monkeypatch):
    """Its age is that of the newest file beside it; a living compiler's is not even named."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    lock = tmp_path / "py311_cpu/deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - 1900,) * 2)
    compiler = subprocess.Popen(["sleep", "60"], cwd=lock.parent)
    try:
        assert jit_locks.find_abandoned_locks() == []
    finally:
        compiler.kill()
        compiler.wait()
    (lock.parent / "shm.o").touch()  # something was built a moment ago, perhaps by another node
    assert [found.age < 1000 for found in jit_locks.find_abandoned_locks()] == [True]
    (lock.parent / "shm.o").unlink()
    assert [(found.path, found.age > 1800) for found in jit_locks.find_abandoned_locks()] == [(lock, True)]
