"""A page in a real Chromium, without a window."""

import re
import subprocess
from pathlib import Path

# As root it starts without its sandbox only; without a network it is not to look for one.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def after(page: Path, folder: Path, script: str) -> str:
    """Return the document of a page after a script has run in it, as Chromium has it then."""
    copy = folder / "page.html"
    # The last one: the library of charts has this text in a string.
    before, _, end = page.read_text().rpartition("</body>")
    copy.write_text(f"{before}<script>{script}</script></body>{end}")
    command = ("chromium", *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri())
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def column(document: str, table: str, number: int) -> list[str]:
    """Return a column's texts, of the body of the table with this caption."""
    body = re.search(rf"<caption>{re.escape(table)}</caption>.*?<tbody>(.*?)</tbody>", document, re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)[number] for row in rows]
    return [" ".join(re.sub(r"<[^>]*>", "", cell).split()) for cell in cells]
