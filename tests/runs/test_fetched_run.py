import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.places import Place
from collagan_dist.runs.fetched_run import local_run
from tests.faults.test_bad_input import run as command
from tests.runs.run_folders import KEPT, checkpoint_names
from tests.runs.test_copies import copy_all, lease  # noqa: F401 (a fixture)
from tests.training.small import equal, weights


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_run_is_evaluated_by_the_url_of_its_copies(shards, run, s3, lease, tmp_path, capsys):  # noqa: F811
    """As in its own folder. What is newer there is fetched by the next command; a URL without a run is said to be one."""
    url, out = f"s3://{s3.bucket}/runs/run", tmp_path / "out"
    copy_all(Place(url), run, lease).close()
    folder = local_run(url)
    assert folder == local_run(url) and checkpoint_names(folder) == KEPT[1:]
    assert equal(weights(folder, 9), weights(run, 9))
    assert (folder / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    code, text = command(capsys, "report", url, "--out", tmp_path / "page.html")
    assert code == 0 and (tmp_path / "page.html").exists(), text
    code, text = command(capsys, "export", url, "--out", out)
    assert (
        code == 0
        and (out / "generator.safetensors").read_bytes()
        == (run / f"checkpoints/{KEPT[1]}/ema.safetensors").read_bytes()
    )
    code, text = command(capsys, "evaluate", f"{url}x", "--split", "test")
    assert code == 2 and f"{url}x: no copies of a run are there (no config.yaml)" in text
    code, text = command(capsys, "serve", url)
    assert code == 2 and "only evaluate, complete, export and report take the copies of a run" in text


@pytest.mark.parametrize("url", ["https://example.org/run", "hf://datasets/a/b", "memory://x"])
def test_urls_whose_runs_cannot_be_read(url):
    with pytest.raises(ConfigError, match="the copies of a run are read from a folder or from file://, s3://"):
        local_run(url)
