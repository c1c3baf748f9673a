"""A page in a real Chromium, without a window."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As root it starts without its sandbox only; without a network it is not to look for one.
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_TIMEOUT_SECONDS = 120


def after(page: Path, folder: Path, script: str) -> str:
    """Return the document of a page after a script has run in it, as Chromium has it then."""
    copy = folder / "page.html"
    # The last one: the library of charts has this text in a string.
    before, _, end = page.read_text().rpartition("</body>")
    copy.write_text(f"{before}<script>{script}</script></body>{end}")
    command = ("chromium", *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri())
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS).stdout


def column(document: str, table: str, number: int) -> list[str]:
    """Return a column's texts, of the body of the table with this caption."""
    body = re.search(rf"<caption>{re.escape(table)}</caption>.*?<tbody>(.*?)</tbody>", document, re.DOTALL)
    assert body is not None
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body[1], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)[number] for row in rows]
    return [" ".join(re.sub(r"<[^>]*>", "", cell).split()) for cell in cells]


class Tab:
    """A page that is open: frames are rendered, the pointer moves, and what the console gets is kept in `errors`."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = os.fdopen(commands, "wb"), os.fdopen(answers, "rb")
        self._number, self._rest, self._session = 0, b"", {}
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while (answer := self._read()).get("id") != self._number:
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._answers.read1(1 << 16)
            assert data, "Chromium has ended"
            self._rest += data
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, page: Path) -> None:
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for("document.readyState === 'complete'")

    def wait_for(self, condition: str) -> None:
        """Wait until a condition of the page holds; a test that waits for nothing fails."""
        end = f"Date.now() + {1000 * _TIMEOUT_SECONDS}"
        late = f"Date.now() > end ? reject(Error({json.dumps(condition)})) : setTimeout(look, 50)"
        look = f"const end = {end}; const look = () => ({condition}) ? resolve() : {late}; look()"
        self.evaluate(f"new Promise((resolve, reject) => {{ {look} }})")

    def move_pointer(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def open_tab(folder: Path, width: int = 1280, height: int = 1000) -> Iterator[Tab]:
    """Start Chromium, which is spoken to through the pipes 3 and 4, and yield its tab."""
    (commands, to_browser), (from_browser, answers) = os.pipe(), os.pipe()
    # The shell gives the two pipes the numbers that Chromium expects.
    script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    options = (*OPTIONS, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}")
    command = ("bash", "-c", script, "chromium", *options, "--remote-debugging-pipe")
    with subprocess.Popen(command, pass_fds=(commands, answers), stderr=subprocess.DEVNULL) as process:
        os.close(commands)
        os.close(answers)
        try:
            yield Tab(to_browser, from_browser)
        finally:
            process.terminate()
