import logging
import shutil
import subprocess
import sys

import pytest

from collagan_dist.commands.main import COMMANDS, report_error
from collagan_dist.config import strict_yaml
from collagan_dist.data.shards.remote import open_location
from collagan_dist.doctor.finding import failed
from collagan_dist.errors import ConfigError, DataError
from collagan_dist.files import DiskFull
from collagan_dist.log import log_to_stderr
from collagan_dist.urls import has_secret, redact, redact_value
from tests.commands.conftest import SMALL, call

SECRETS = [
    "https://CANARY@host/data",
    "https://user:CANARY@host/data",
    "http://user:CANARY@host:8080/data?x=1#y",
    "HTTPS://:CANARY@host",
    "https://host/data?X-Amz-Signature=CANARY&a=b",
    "https://host/data?CANARY",
    "https://host/data#CANARY",
    "https://host/data;jsessionid=CANARY",
    "https://host/token=CANARY/data",
    "https://host/data&access_key:CANARY",
    "https://host/data%3Ftoken%3DCANARY",
    "s3://KEY:CAN/ARY+CANARY@bucket/data",
    "s3:/KEY:CANARY@bucket/data",
    "gs://CANARY@bucket",
    "abfs://container:CANARY@account.dfs.core.windows.net/data",
    "ftp://user:CANARY@host/data",
    "ssh://user:CANARY@host/data",
    "ray://user:CANARY@host:10001",
    "simplecache::https://user:CANARY@host/data",
    "https://proxy/https://user:CANARY@host/data",
    "user:CANARY@host/data",
    "user:CANARY@host:6379",
    "https://user:CAN ARY CANARY@host/data",
    "file://user:CANARY@host/data",
    "hf://user:CANARY@datasets/owner/name",
    "hf://CANARY@owner/name",
]
HARMLESS = [
    "https://host/data", "http://127.0.0.1:8080/a/b_c/authors/secretariat", "s3://bucket/data-2024.01", "file:///data/a b",
    "abfs://container@account.dfs.core.windows.net/data", "host:6379", "auto", "runs/a@b", "photos/what?.jpg", "a#1.png",
    "schedule.steps=20", "12:30", "data.shards=s3://bucket/data", "C:x", "pipe:touch canary", "seed=1 # x", "s3://bucket/authors=5/x",
    "hf://datasets/owner/name@v1.0/data", "hf://owner/name@main",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRETS)
def test_a_secret_is_found_and_taken_out_wherever_it_is(url):
    for value in (url, f"data.shards={url}", f"--data={url}"):
        assert has_secret(value) and "CANARY" not in redact_value(value), redact_value(value)
    if not url.startswith("user:") and " " not in url:
        text = redact(f"cannot read {url}: nothing there")
        assert "CANARY" not in text and text.startswith("cannot read ") and text.endswith("nothing there")
        assert redact(text) == text
    with pytest.raises(ConfigError) as caught:
        open_location(url)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("value", HARMLESS)
def test_what_has_no_secret_stays(value):
    assert not has_secret(value) and redact(value) == redact_value(value) == value
    for text in (f"see '{value}', please", f"see {value}; then go on"):
        assert redact(text) == text


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_repeats_a_secret_of_its_arguments(command, tmp_path, monkeypatch, capsys):
    """Not as a place, an option, a value of one, nor where no argument belongs; and no file has it."""
    monkeypatch.chdir(tmp_path)
    for url in SECRETS:
        for words in ([url], ["x", "--data", url], [f"--out={url}"], ["--set", f"a={url}"], ["x", "y", "--none", url]):
            assert call(command, *words) == 2
            out, err = capsys.readouterr()
            assert "CANARY" not in out + err and "credentials belong in the environment" in err, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", SECRETS)
def test_no_file_brings_a_secret_in(url, tmp_path, capsys):
    """Recipes, configurations and search spaces are read by one loader."""
    (tmp_path / "file.yaml").write_text(f"{{data: {{shards: '{url}'}}, root: \"{url}\", dataset: folder, out: x}}\n")
    file = tmp_path / "file.yaml"
    for words in (
        ["train", file],
        ["pack", file],
        ["sweep", "demo", "--space", file, "--data", "x", "--out", tmp_path / "o"],
    ):
        assert call(*words, *(["--run", tmp_path / "run"] if words[0] == "train" else [])) in (2, 3)
        out, err = capsys.readouterr()
        assert "CANARY" not in out + err
    with pytest.raises(ConfigError, match=r"file.yaml:1: .*credentials belong in the environment"):
        strict_yaml.load(file.read_text(), str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["file.yaml"]


def test_what_errors_logs_and_findings_say(capsys):
    url = "https://user:CANARY@host/data?token=CANARY"
    log_to_stderr()
    logging.getLogger("collagan_dist.x").warning("fetched %s", url)
    report_error("train", DataError(f"{url}: cannot be fetched"))
    assert (
        "CANARY" not in str(DiskFull(f"{url}: full", 0)) and "CANARY" not in failed("ray", f"RAY_ADDRESS is {url}").text
    )
    assert "CANARY" not in capsys.readouterr().err


def test_a_long_text_takes_no_time_and_no_depth():
    for text in (
        "a://" * 50_000,
        "a" * 1_000_000,
        "https://x@" * 50_000,
        "a:" * 300_000,
        "=a:" * 50_000,
        "=a:" * 50_000 + "@",
    ):
        redact(text)
        has_secret(text)


def test_a_traceback_has_none():
    code = (
        "import collagan_dist.commands.main as m\n"
        "def run(args): raise ValueError('https://user:CANARY@host/data')\n"
        "m.COMMANDS['report'].run = run\nm.main(['report', 'x'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        result.returncode == 1 and "ValueError: https://…@host/data" in result.stderr and "CANARY" not in result.stderr
    )


@pytest.mark.parametrize("names", [("data.json", "world.json"), ("config.yaml",)])
def test_a_page_has_none(shards, tmp_path, capsys, names):
    """Of a run folder that another version, or somebody, wrote."""
    run = tmp_path / "run"
    assert call("train", "demo", "--data", shards.folder, "--run", run, *SMALL) == 0
    url = "https://user:CANARY@host/data?token=CANARY"
    copy = shutil.copytree(run, tmp_path / "copy")
    for name in names:
        text = (copy / name).read_text().replace(str(shards.folder), url)
        (copy / name).write_text(text.replace('"command": "', f'"command": "collagan train --data {url} '))
    code = call("report", copy)
    out, err = capsys.readouterr()
    assert "CANARY" not in out + err
    assert code == 0 or (code == 2 and "config.yaml" in names)
    if code == 0:
        page = (copy / "report.html").read_text()
        assert "https://…@host/data" in page and "CANARY" not in page
