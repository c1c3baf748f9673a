import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import collagan_dist
from collagan_dist import shell
from collagan_dist.commands import train
from tests.conftest import ROOT

NAMES = ["plain", "my run", "it's", 'a "b"', "a\nb", "\ttab", "$HOME", "`id`", "a;b", "*", "~", "\\n", "a\\", "\x1b[31m", "ü\u202e", "!x", "#x", "",
         "a=b c", "-x", os.fsdecode(b"\xff1")]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_bash_takes_a_word_for_what_it_was(name):
    """On one line, in characters that a terminal shows as they are."""
    line = shell.join(sys.executable, "-c", "import os, sys; sys.stdout.buffer.write(os.fsencode(sys.argv[1]))", name)
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == os.fsencode(name)


def test_a_path_is_no_option():
    assert shell.collagan("report", Path("-x y")) == "collagan report './-x y'"


def test_a_program_that_the_shell_would_not_find_has_its_path(monkeypatch):
    monkeypatch.setenv("PATH", "/bin")
    here = Path(sys.executable).parent
    assert shell.collagan("doctor") == f"{here}/collagan doctor"
    line = shell.relaunch("train", "demo", launcher="torchrun", ranks_here=2)
    assert line == f"{here}/torchrun --nproc-per-node 2 -m collagan_dist train demo"


def test_a_torchrun_is_repeated_with_its_options(tmp_path):
    """What the launcher was told stands in its own arguments: number of nodes, where they meet, its log folder."""
    (tmp_path / "collagan_dist").mkdir()
    (tmp_path / "collagan_dist/__init__.py").touch()
    (tmp_path / "collagan_dist/__main__.py").write_text(
        "import sys; sys.path[:0] = [sys.argv.pop(1)]; sys.modules.pop('collagan_dist')\n"
        "from collagan_dist.commands.train import _continue_command; print(_continue_command('torchrun', 7))\n"
    )
    options = ["--standalone", "--nproc-per-node", "1", "--log-dir", str(tmp_path / "my logs")]
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "--", "collagan_dist", str(ROOT)]
    done = subprocess.run([*command, "train", "demo", "--run", "my\nrun"], cwd=tmp_path, capture_output=True, text=True)
    words = ["torchrun", *options, "-m", "--", "collagan_dist", "train", "demo", "--run"]
    assert done.stdout == shlex.join(words) + " $'my\\nrun'\n", done.stderr


def test_lines_of_launchers(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["collagan", "train", "my demo", "--run", "a\nb"])
    for launcher, before in {
        "alone": [],
        "srun": ["srun"],
        "torchrun": ["torchrun", "--nproc-per-node", "2", "-m", "--"],
    }.items():
        line = train._continue_command(launcher, 2)
        done = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True)
        program = "collagan_dist" if launcher == "torchrun" else "collagan"
        assert done.stdout.split("\0")[:-1] == [*before, program, "train", "my demo", "--run", "a\nb"]


# `collagan train X` in an f-string, with a value that nobody quotes.
UNQUOTED = re.compile(r"collagan(_dist)? (?!is )[a-z]+ [^`\"';(]*\{(?!shell\.|onnx})")


def test_no_other_place_writes_a_command_line():
    for path in Path(collagan_dist.__file__).parent.rglob("*.py"):
        found = [line for line in path.read_text().splitlines() if UNQUOTED.search(line)]
        assert not found, (path, found)
    for text in ('f"next: collagan train {name}"', 'f"run `collagan verify --deep {folder}`"'):
        assert UNQUOTED.search(text)
