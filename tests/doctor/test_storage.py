import pytest

from collagan_dist.doctor import storage


@pytest.mark.parametrize(
    ("limit", "value", "mend"),
    [
        ("_SLOW_WRITE_SECONDS", 0.0, "checkpoints need faster storage"),
        ("estimate_checkpoint_bytes", lambda config: 1 << 60, "make room"),
    ],
)
def test_a_folder_that_is_slow_or_full(limit, value, mend, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_SLOW_WRITE_SECONDS", 1e9)
    monkeypatch.setattr(storage, limit, value)
    (found,) = storage.check_writing(tmp_path)
    assert (found.state, found.mend) == ("warning", mend) and not list(tmp_path.iterdir())
