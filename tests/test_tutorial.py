"""docs/tutorial.md: its commands run in their order in an empty folder, smaller, and print what the page shows."""

import os
import re
import subprocess

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs/tutorial.md").read_text()
# A block of commands and, where the page shows it, what they print.
BLOCKS = re.findall(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", PAGE, re.MULTILINE | re.DOTALL)
SMALLER = {
    "--count 600": "--count 60",
    "schedule.steps=300": "schedule.steps=4",
    "schedule.steps=350": "schedule.steps=5",
    "schedule.steps=30": "schedule.steps=9",
    "schedule.steps=10": "schedule.steps=2",
    "model.widths.generator=12": "model.widths.generator=4",
}
NUMBER = re.compile(r"\d[\d,.]*(?<![,.])")


def smaller(commands: str) -> str:
    for text, other in SMALLER.items():
        commands = re.sub(rf"{re.escape(text)}(?!\d)", other, commands)
    return commands


def expression(line: str) -> str:
    """A line of the page as a regular expression: any number is as good, … stands for anything, blanks are not counted."""
    words = [NUMBER.sub("<number>", word) for word in line.split()]
    text = r"\s+".join(re.escape(word).replace("…", ".*") for word in words)
    return rf"\s*{text.replace('<number>', NUMBER.pattern)}\s*"


def shown_in(shown: str, printed: str) -> None:
    """Assert that the lines of the page are printed, in their order."""
    rest = printed.splitlines()
    for line in shown.splitlines():
        if line.strip() != "…":
            found = [number for number, one in enumerate(rest) if re.fullmatch(expression(line), one)]
            assert found, f"{line}\nis not in\n{printed}"
            rest = rest[found[0] + 1 :]


@pytest.mark.parametrize("sweeps", [False, pytest.param(True, marks=pytest.mark.full)])
def test_the_commands_do_what_the_page_says(tmp_path, sweeps):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    for commands, shown in BLOCKS:
        if not sweeps and "collagan sweep" in commands and "--dry-run" not in commands:
            continue  # Ray takes more time than all the others together
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", smaller(commands)],
            cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, commands + done.stdout
        shown_in(shown, done.stdout)
    made = ["runs/first/report.html", "completed/000060.completed.png", "photographs/Label/img_celeba/000001.png"]
    assert all((tmp_path / name).is_file() for name in made)


def test_every_number_that_is_made_smaller_is_on_the_page():
    assert len(BLOCKS) > 12 and all(text in PAGE for text in SMALLER)


def test_what_is_shown_must_be_printed():
    shown_in("a 1.5 b …\n…\nc", "a 22 b cd\nx\n c ")
    for shown in ("a 1.5 c", "c\na 1 b", "a b"):
        with pytest.raises(AssertionError):
            shown_in(shown, "a 22 b\nc")
