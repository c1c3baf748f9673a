"""docs/pictures.py, and the pictures that it made."""

import re
import sys

import pytest
from PIL import Image

from docs import pictures
from docs.pictures import IMAGES, MAX_BYTES, typed

BAR = (
    r"import sys; sys.stdout.write('kept\nspinner\n\r\x1b[1A\x1b[2K\x1b[?25l1/2\r\x1b[2K2/2\n\x1b[?25h\x1b[1mtable\x1b[0m\n');"
    "print(sys.stdout.isatty())"
)


def test_a_terminal_keeps_the_last_state_of_a_line():
    assert typed([sys.executable, "-c", BAR]) == "kept\n2/2\n\x1b[1mtable\x1b[0m\nTrue\n"


def test_a_command_that_fails_is_shown():
    with pytest.raises(SystemExit, match="no such thing"):
        typed([sys.executable, "-c", "raise SystemExit('no such thing')"])


@pytest.mark.browser
def test_the_page_of_a_run_with_a_full_path_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1\n")
    with Image.open(pictures.write_page(run)) as image:
        assert image.size == pictures.PAGE_PIXELS and len(image.getcolors() or ()) > 10


def test_the_pictures_are_small_and_load_nothing():
    found = sorted(path.name for path in IMAGES.iterdir())
    assert found == ["evaluate.svg", "report.png", "scaling.svg"]
    assert all((IMAGES / name).stat().st_size <= MAX_BYTES for name in found)
    texts = [(IMAGES / name).read_text() for name in found if name.endswith(".svg")]
    hosts = re.findall(r"https?://[\w.]+", "".join(texts))
    assert set(hosts) <= {"http://www.w3.org", "https://www.textualize.io"}, hosts  # a namespace, a comment
