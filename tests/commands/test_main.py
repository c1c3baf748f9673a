import subprocess
import sys

import pytest

from collagan_dist import __version__
from collagan_dist.commands import main, verify
from collagan_dist.errors import ClusterError, DataError, Interrupted, mark_on_all_ranks
from tests.distributions import install


@pytest.mark.parametrize("command", main.COMMANDS)
def test_help_has_an_example(command, collagan):
    result = collagan(command, "--help")
    assert result.code == 0 and f"example: collagan {command}" in result.out and "--debug" in result.out


def test_version(collagan):
    assert collagan("--version").out == f"collagan_dist {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "COMMAND"),
        ("trian", "'trian'"),
        ("train", "CONFIG"),
        ("verify x --depe", "--depe"),
        ("verify x --dee", "--dee"),  # options are not abbreviated
        ("draw out --workers -1", "'-1' is not a whole number"),
        ("complete model photo.jpg", "--out"),
        ("serve", "MODEL"),
        ("serve run --port 80.5", "'80.5' is not a port: a whole number from 0 to 65535"),
        ("evaluate run --hole block,round", "'round' is not a kind of hole; choose from block"),
        ("evaluate run --blend maybe", "'maybe'"),
        ("label faces", "--model"),
        ("label faces --model run --batch 0", "'0' is not a whole number above 0"),
        ("pack recipe --part 3/2", "'3/2' is no part"),
        ("pack recipe --part 0/2 --merge", "not allowed with"),
        ("pack recipe --max-bad 2", "'2' is not a fraction"),
        ("reproduce --data d --out o --tables 1,4", "'4' is not one of 1, 2, 3"),
        ("reproduce --data d --out o --figures 2", "'2' is not one of 1, 3, 4, 5, 6"),
        ("reproduce --data d --out o --scale 0", "'0' is not a number above 0"),
        ("reproduce --data d --out o --seeds 0", "'0' is not a whole number above 0"),
        ("reproduce --data d --out o --ranks 2 --ray auto", "not allowed with"),
        ("sweep demo --space s --data d --out o --trials 0", "'0' is not a whole number above 0"),
        ("sweep demo --space s --data d --out o --seeds -1", "'-1' is not a whole number"),
        ("sweep demo --space s --data d --out o --gpus one", "'one'"),
    ],
)
def test_usage_errors_end_with_2(words, message, collagan):
    result = collagan(*words.split())
    assert result.code == 2 and "usage: collagan" in result.err and message in result.err


def test_resources_that_no_trial_can_have_end_with_2(collagan):
    message = "collagan sweep: gpus=1.5 is not a number of GPUs: a whole one, or a fraction of one\n"
    words = "sweep demo --space s --data d --out o --gpus 1.5"
    assert collagan(*words.split()) == (2, "", message)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (DataError("no shards; pack them"), 3, "collagan verify: no shards; pack them\n"),
        (ClusterError("rank 1 is gone"), 4, "collagan verify: rank 1 is gone\n"),
        (Interrupted("saved"), 75, "collagan verify: saved\n"),
        (FileNotFoundError(2, "No such file or directory", "x.yaml"), 2, "collagan verify: x.yaml: No such file or directory\n"),
        (KeyboardInterrupt(), 75, "\ncollagan verify: interrupted; the same command begins again\n"),
    ],
)  # fmt: skip
def test_an_error_is_one_message(error, code, message, collagan, monkeypatch):
    monkeypatch.setattr(verify, "run", lambda args: (_ for _ in ()).throw(error))
    assert collagan("verify", "shards") == (code, "", message)


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        ("pack drawn", True),
        ("reproduce --data d --out o", True),
        ("reproduce --data d --out o --dry-run", False),
        ("report runs", False),
    ],
)
def test_only_what_continues_says_so(words, goes_on, collagan, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    for command in main.COMMANDS.values():
        monkeypatch.setattr(command, "run", interrupted)
    assert collagan(*words.split()).err.endswith("continues\n" if goes_on else "begins again\n")


@pytest.mark.parametrize(("error", "debug"), [(DataError("no shards"), ["--debug"]), (OSError("a bug"), [])])
def test_an_error_with_a_traceback(error, debug, monkeypatch):
    monkeypatch.setattr(verify, "run", lambda args: (_ for _ in ()).throw(error))
    with pytest.raises(type(error), match=str(error)):
        main.main(["verify", "shards", *debug])


def test_a_start_with_libraries_that_nobody_tested(collagan, tmp_path, monkeypatch):
    """Numpy 1.26 draws other boxes and fails in a training with a traceback."""
    install(tmp_path, "collagan_dist", "0.1.0", "numpy>=2.0")
    install(tmp_path, "numpy", "1.26.4")
    monkeypatch.syspath_prepend(tmp_path)
    message = "numpy 1.26.4 is installed, numpy>=2.0 is needed: pip install 'numpy>=2.0'\n"
    for words in (("draw", "faces"), ("train", "demo", "--data", "packed"), ("report", "run")):
        assert collagan(*words) == (2, "", f"collagan {words[0]}: {message}")
    assert collagan("train", "--help").code == 0


def test_ranks_report_an_error_once_if_all_have_it(monkeypatch, capsys):
    """Under a launcher an interruption ends with 0: launchers do not pass on a rank's 75."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0,
                        "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    assert main.report_error("train", mark_on_all_ranks(DataError("no shards"))) == 3 and capsys.readouterr().err == ""
    assert main.report_error("train", DataError("this disk")) == 3
    assert capsys.readouterr().err == "collagan train: this disk\n"
    assert main.report_error("train", Interrupted("saved")) == 0


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    """`collagan verify | head -1`."""
    code = (
        "import sys; from collagan_dist.commands import main, verify\n"
        "verify.run = lambda args: [print(n, flush=True) for n in range(100_000)]\n"
        "main.main(['verify', 'shards'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert (process.wait(timeout=60), process.stderr.read()) == (0, b"")
