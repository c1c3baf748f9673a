import io
import re

import pytest
from rich.console import Console

from collagan_dist.training.progress_bar import ProgressBar

LINE = {"images_per_s": 123.4, "data_wait_share": 0.25, "loss/total": 12.3456}


def test_a_line_of_text_without_a_terminal(capsys):
    bar = ProgressBar(start=10, stop_at=30, batch=4)
    bar.advance()
    bar._first_done -= 3  # seconds ago
    bar._steps = 7
    bar.show(17, LINE)
    bar.close()
    line = " ".join(capsys.readouterr().err.split())
    assert line == "step 17/30 123 images/s loss 12.346 data wait 25% ETA 7 s"  # 13 steps of half a second


def test_the_rate_is_told_after_two_steps(capsys):
    """Without the first one, which prepares much; once, where there is no terminal."""
    bar = ProgressBar(start=0, stop_at=30, batch=4)
    bar.advance()
    bar._first_done -= 2  # seconds ago
    for _ in range(3):
        bar.advance()
    bar.close()
    assert " ".join(capsys.readouterr().err.split()) == "first steps: 2 images/s"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_all_numbers_fit_the_terminal(width):
    screen = io.StringIO()
    bar = ProgressBar(0, 26_000, 64, Console(file=screen, width=width, force_terminal=True, color_system=None))
    for _ in range(1300):
        bar.advance()
    bar._first_done -= 3600
    bar.advance()
    bar.show(1301, LINE)
    bar.close()
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()[-1].rstrip()
    assert len(last) <= width and "…" not in last
    for words in ("training", "1301/26000", "ETA 19", "123 images/s", "loss 12.346"):
        assert words in last, last
    assert ("data wait 25%" in last) == (width >= 100)
