"""The pictures of README.md: a run's report page and the terminal of its evaluation. `make pictures` writes docs/images/.

`python docs/pictures.py RUN [NAME]` takes any run folder; the terminal's picture calls it NAME. Chromium is needed.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.text import Text

IMAGES = Path(__file__).parent / "images"
MAX_BYTES = 150_000
COLUMNS, LINES = 80, 40
PAGE_PIXELS = (1280, 1100)


def typed(command: list[str]) -> str:
    """Return what a command writes to a terminal of COLUMNS, colours included, each line as it was at last."""
    reader, writer = pty.openpty()
    env = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": str(LINES), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL, env=env) as process:
        os.close(writer)
        content = b""
        try:
            while part := os.read(reader, 1 << 16):
                content += part
        except OSError:  # Linux says so where the last writer has closed the terminal
            pass
    os.close(reader)
    if process.returncode:
        raise SystemExit(content.decode())
    shown: list[str] = []
    for line in content.decode().split("\n"):
        # A spinner is taken away by going up to its line.
        del shown[len(shown) - line.count("\x1b[1A") :]
        # A bar is drawn again and again on its line; and the cursor is hidden meanwhile.
        shown.append(re.sub(r"\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K", "", line.rstrip("\r").rpartition("\r")[2]))
    return "\n".join(shown)


def write_terminal(run: Path, name: str) -> Path:
    """Draw `collagan evaluate RUN` as it looks in a terminal; nothing in the run folder is changed."""
    with tempfile.TemporaryDirectory() as folder:
        printed = typed([sys.executable, "-m", "collagan_dist", "evaluate", str(run), "--out", folder])
    printed = printed.replace(folder, f"{name}/evaluation").rstrip()
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text(f"$ collagan evaluate {name}", style="bold"))
        console.print(Text.from_ansi(printed))
        svg = console.export_svg(title="collagan")
    # Its font would be loaded from another host; letters have their widths in the file.
    target = IMAGES / "evaluate.svg"
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
    return target


def write_page(run: Path) -> Path:
    """Draw the top of the run's report page."""
    target = IMAGES / "report.png"
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        report = [sys.executable, "-m", "collagan_dist", "report", str(run), "--out", str(page)]
        subprocess.run(report, check=True, stdout=subprocess.DEVNULL)
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-background-networking",
        ]
        size = ",".join(map(str, PAGE_PIXELS))
        taken = [f"--user-data-dir={folder}/profile", f"--window-size={size}", f"--screenshot={target}", page.as_uri()]
        subprocess.run(["chromium", *options, *taken], check=True, capture_output=True)
    # A page has few colours: a palette makes a third of the file.
    Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
    return target


def main() -> None:
    run = Path(sys.argv[1])
    name = sys.argv[2] if sys.argv[2:] else str(run)
    IMAGES.mkdir(exist_ok=True)
    for path in (write_terminal(run, name), write_page(run)):
        print(f"{path}: {path.stat().st_size:,} bytes")
        if path.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{path}: more than {MAX_BYTES:,} bytes; take less of the page")


if __name__ == "__main__":
    main()
