from concurrent.futures import ThreadPoolExecutor

import pytest

from collagan_dist.errors import ConfigError
from collagan_dist.places import Place
from collagan_dist.runs.fetched_run import local_run
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.faults.processes import until
from tests.faults.test_bad_input import run as command
from tests.runs.run_folders import KEPT, checkpoint_names
from tests.runs.test_copies import copy_all, lease  # noqa: F401 (a fixture)
from tests.training.small import equal, small, weights


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


def test_photographs_are_completed_by_the_url_of_a_run(shards, run, s3, lease, drawn, tmp_path, capsys):  # noqa: F811
    """As by its folder, to the byte."""
    url, picture = f"s3://{s3.bucket}/runs/run", next((drawn / "Img/img_celeba").iterdir())
    copy_all(Place(url), run, lease).close()
    found = []
    for model, out in ((run, tmp_path / "here"), (url, tmp_path / "there")):
        code, text = command(capsys, "complete", model, picture, "--out", out, "--hole", "block")
        assert code == 0, text
        found.append({path.name: path.read_bytes() for path in out.rglob("*.png")})
    assert found[0] == found[1] and found[0]


def test_a_new_run_of_an_old_name_is_not_taken_for_it(shards, run, s3, lease, tmp_path):  # noqa: F811
    """Nor its checkpoint of the same step; and what was damaged in the cache is fetched again."""
    place = Place(f"s3://{s3.bucket}/runs/run")
    copy_all(place, run, lease).close()
    folder = local_run(place.url)
    damaged = folder / f"checkpoints/{KEPT[1]}/ema.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert equal(weights(local_run(place.url), 9), weights(run, 9))
    place.remove("checkpoints", "lease")
    train(
        small(shards.folder, seed=7, schedule__steps=2, checkpoint__copy_to=f"s3://{s3.bucket}/runs"),
        tmp_path / "new/run",
        World(),
    )
    assert local_run(place.url) == folder and checkpoint_names(folder) == ["step-00000002"]
    assert equal(weights(folder, 2), weights(tmp_path / "new/run", 2))


def test_ranks_wait_for_the_download_of_one(run, s3, lease, monkeypatch):  # noqa: F811
    """However long it takes; each file is fetched once."""
    url = f"s3://{s3.bucket}/runs/run"
    copy_all(Place(url), run, lease).close()
    monkeypatch.setattr("collagan_dist.files._LOCK_WAIT_SECONDS", 0.0)
    s3.requests.clear()
    s3.faults["generator.safetensors"] = ["slow", ""]
    with ThreadPoolExecutor(2) as executor:
        ranks = [executor.submit(local_run, url) for _ in range(2)]
        until(lambda: s3.requests["generator.safetensors"] == 1)
        s3.go_on.set()
        assert ranks[0].result() == ranks[1].result()
    assert s3.requests["generator.safetensors"] == 1


@pytest.mark.parametrize("url", ["https://example.org/run", "hf://datasets/a/b", "memory://x"])
def test_urls_whose_runs_cannot_be_read(url):
    with pytest.raises(ConfigError, match="the copies of a run are read from a folder or from file:///, s3://"):
        local_run(url)
