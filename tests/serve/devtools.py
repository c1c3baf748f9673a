"""A page in a real Chromium, driven over its DevTools protocol: real mouse events, scripts, downloads, screenshots."""

import asyncio
import base64
import itertools
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.report.browser import OPTIONS

SECONDS = 120  # to wait at most, for a machine that does other work


class Page:
    """`events` are those that Chromium has sent so far, each with `method` and `params`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json(timeout=SECONDS)
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    async def evaluate(self, script: str) -> Any:
        """Return the value of a script, awaited if it is a promise."""
        result = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, script: str) -> Any:
        """Return the first value of a script that is true."""
        end = time.monotonic() + SECONDS
        while not (value := await self.evaluate(script)):
            assert time.monotonic() < end, f"{script} stays {value!r}; {await self.evaluate('document.body.innerText')}"
            await asyncio.sleep(0.05)
        return value

    async def drag(self, points: list[tuple[float, float]]) -> None:
        """Press the mouse's left button at the first point of the window, move along the others, let go at the last."""
        for number, (x, y) in enumerate(points):
            kind = "mouseMoved" if number else "mousePressed"
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
        x, y = points[-1]
        await self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    async def screenshot(self, path: Path) -> None:
        taken = await self.send("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


@asynccontextmanager
async def open_page(url: str, folder: Path, size: tuple[int, int] = (1280, 900)) -> AsyncIterator[Page]:
    """Show a page in a Chromium of its own, whose profile and downloads go to `folder`."""
    profile = folder / "profile"
    window = f"--window-size={size[0]},{size[1]}"
    command = ("chromium", *OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-port=0", window, "about:blank")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with aiohttp.ClientSession() as session:
            address = await _address(session, profile / "DevToolsActivePort")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await page.send(f"{domain}.enable")
                await page.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
                await page.send("Page.navigate", url=url)
                await page.wait_for("document.readyState === 'complete'")
                yield page
    finally:
        process.terminate()
        process.wait(timeout=SECONDS)


async def _address(session: aiohttp.ClientSession, file: Path) -> str:
    """Return the address of the first page's socket, once Chromium has written its port."""
    end = time.monotonic() + SECONDS
    while True:
        assert time.monotonic() < end, "Chromium opens no port"
        await asyncio.sleep(0.05)
        lines = file.read_text().split() if file.exists() else []
        if not lines:
            continue
        async with session.get(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
            pages = [one for one in await answer.json() if one["type"] == "page"]
        if pages:
            return pages[0]["webSocketDebuggerUrl"]
