"""The choice of a command, its help, its errors and its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from collagan_dist.commands import main, verify
from collagan_dist.errors import ClusterError, DataError, Interrupted, on_all_ranks
from tests.commands.conftest import Collagan


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_has_an_example(command: str, collagan: Collagan) -> None:
    result = collagan(command, "--help")
    assert result.code == 0 and f"example: collagan {command}" in result.out and "--debug" in result.out


@pytest.mark.parametrize(
    "arguments", [(), ("trian",), ("train",), ("verify", "x", "--depe"), ("verify", "x", "--dee")], ids=" ".join
)
def test_usage_errors_end_with_2(arguments: tuple[str, ...], collagan: Collagan) -> None:
    """An option is not abbreviated either."""
    result = collagan(*arguments)
    assert result.code == 2 and "usage: collagan" in result.err


def test_version(collagan: Collagan) -> None:
    assert collagan("--version").out.startswith("collagan_dist 0.")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no shards; pack them"), 3, "collagan verify: no shards; pack them\n"),
        (ClusterError("rank 1 is gone"), 4, "collagan verify: rank 1 is gone\n"),
        (Interrupted("saved"), 75, "collagan verify: saved\n"),
        (FileNotFoundError(2, "No such file or directory", "x.yaml"), 2, "collagan verify: x.yaml: No such file or directory\n"),
        (KeyboardInterrupt(), 75, "\ncollagan verify: interrupted; the same command continues\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_message(
    error: BaseException, code: int, message: str, collagan: Collagan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "run", lambda args: (_ for _ in ()).throw(error))
    assert collagan("verify", "shards") == (code, "", message)


def test_debug_shows_the_traceback_of_an_error(monkeypatch: pytest.MonkeyPatch, collagan: Collagan) -> None:
    monkeypatch.setattr(verify, "run", lambda args: (_ for _ in ()).throw(DataError("no shards")))
    with pytest.raises(DataError):
        main.main(["verify", "shards", "--debug"])
    monkeypatch.setattr(verify, "run", lambda args: (_ for _ in ()).throw(OSError("a bug")))
    with pytest.raises(OSError, match="a bug"):
        main.main(["verify", "shards"])


def test_ranks_report_an_error_once_if_all_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under a launcher an interruption ends with 0: launchers do not pass on a rank's 75."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0,
                        "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert main.report_error("train", on_all_ranks(DataError("no shards"))) == 3 and capsys.readouterr().err == ""
    assert main.report_error("train", DataError("this disk")) == 3
    assert capsys.readouterr().err == "collagan train: this disk\n"
    assert main.report_error("train", Interrupted("saved")) == 0


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    """`collagan verify | head -1`."""
    code = (
        "import sys; from collagan_dist.commands import main, verify\n"
        "verify.run = lambda args: [print(n, flush=True) for n in range(100_000)]\n"
        "main.main(['verify', 'shards'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None and process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
