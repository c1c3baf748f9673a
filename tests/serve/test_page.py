"""The page in Chromium, as a person uses it, and that it needs no other host."""

import asyncio
import re

import cv2
import numpy as np
import pytest

from collagan_dist.serve.server import _FILES
from tests.report.page_reader import Page as Document
from tests.serve.conftest import form
from tests.serve.devtools import SECONDS, open_page


def test_the_page_asks_no_other_host():
    for path in _FILES.values():
        text = path.read_text()
        addresses = re.findall(r"""(?:https?:)?//[^\s"'`)]+""", re.sub(r"(?m)(^|\s)//.*$", "", text))
        # The name of a language is no address that is asked.
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path
        assert "@import" not in text and "eval(" not in text
        if path.suffix == ".html":
            document = Document(text)
            links = [*document.values("src"), *document.values("href")]
            assert set(links) == {"icon.svg", "base.css", "page.css", "page.js"}
            # The policy allows neither.
            assert not document.values("style") and not document.values("onclick")
        for name in re.findall(r'getElementById\("(\w+)"|element\("(\w+)"\)', text):
            assert f'id="{"".join(name)}"' in _FILES["/"].read_text()


@pytest.mark.browser
def test_a_person_completes_an_example(server, tmp_path):
    asyncio.run(complete_an_example(server, tmp_path))


async def choose_example(page, number):
    """Click on one of the drawn examples and wait until it can be painted on."""
    await page.wait_for("document.querySelectorAll('.examples button').length === 6")
    await page.evaluate(f"document.querySelectorAll('.examples button')[{number}].click()")
    await page.wait_for("!document.getElementById('editor').hidden")


async def complete_an_example(server, folder):
    async with open_page(f"{server.url}/", folder) as page:
        await choose_example(page, 1)
        # Without a hole nothing is sent.
        await page.evaluate("document.getElementById('complete').click()")
        assert "Paint over" in await page.wait_for("document.getElementById('error').textContent")
        await paint(page, [(0.4, 0.45), (0.5, 0.5), (0.6, 0.5)])
        await paint(page, [(0.1, 0.1), (0.2, 0.2)])
        await page.evaluate("document.getElementById('undo').click()")
        hole = await bytes_of(page, "holeFile()")
        await page.evaluate("document.getElementById('complete').click()")
        await page.wait_for("document.querySelectorAll('.result').length === 2")
        await page.wait_for(
            "[...document.querySelectorAll('.result img')].every((i) => i.complete && i.naturalWidth === 360)"
        )
        # What is downloaded is what is shown.
        assert await page.evaluate(
            "document.querySelector('.completed img').src === document.querySelector('.completed a').href"
        )
        await page.evaluate("document.querySelector('.completed a').click()")
        await check_results(page, server, hole, await downloaded(folder / "downloads/example-2.completed.png"))
        await check_requests(page, server)


async def paint(page, shares):
    """Drag the mouse over the picture, along points in shares of its sides."""
    await page.evaluate("document.getElementById('hole').scrollIntoView({block: 'center'})")
    box = "(({x, y, width, height}) => [x, y, width, height])(document.getElementById('hole').getBoundingClientRect())"
    x, y, width, height = await page.evaluate(box)
    await page.drag([(x + a * width, y + b * height) for a, b in shares])


async def bytes_of(page, promise):
    return bytes(await page.evaluate(f"{promise}.then((b) => b.arrayBuffer()).then((b) => [...new Uint8Array(b)])"))


async def downloaded(file):
    """The bytes of a file that the browser writes, under another name first."""
    for _ in range(20 * SECONDS):
        if file.exists():
            return file.read_bytes()
        await asyncio.sleep(0.05)
    raise AssertionError(f"{file} is not there")


async def check_results(page, server, hole, shown):
    """The picture and the words are what the server answers for the same picture and hole."""
    inside = cv2.imdecode(np.frombuffer(hole, np.uint8), cv2.IMREAD_GRAYSCALE) > 127
    # The stroke with half a brush around it: 14 % of the shorter side. The stroke that was undone is not there.
    brush, rows, columns = 0.14 * 360, np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    expected = (0.4 * 360 - brush / 2, 0.6 * 360 + brush / 2, 0.45 * 440 - brush / 2, 0.5 * 440 + brush / 2)
    assert inside.shape == (440, 360)
    assert (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1) == pytest.approx(expected, abs=2)
    example = (await server.asked("GET", "/examples/2.png")).body
    answer = await server.asked("POST", "/complete", form("run", example, hole, name="example-2.png"))
    assert shown == answer.parts["completed"]
    given, done = (cv2.imdecode(np.frombuffer(b, np.uint8), cv2.IMREAD_COLOR) for b in (example, shown))
    changed = (given != done).any(-1)
    assert changed[inside].mean() > 0.9 and not changed[~inside].any()
    texts = await page.evaluate("[...document.querySelectorAll('.result')].map((r) => r.innerText)")
    assert "run: M*_isd, step 60" in texts[0] and "run (2): M_d, step 2" in texts[1]
    assert "pixels of the picture for one of the model" in texts[0]
    assert await page.evaluate("document.querySelectorAll('.result circle').length") == 10
    left = await page.evaluate("document.querySelectorAll('.result')[1].querySelectorAll('img').length")
    assert left == 1  # the second model completes nothing and finds no parts
    classes = [name.replace("_", " ") for name in answer.facts["classes"]]
    legend = await page.evaluate(
        "[...document.querySelectorAll('.result:first-child .legend li')].map((l) => l.innerText)"
    )
    assert answer.facts["notes"][0] in texts[0] and legend == [*classes, "landmarks"]


async def check_requests(page, server):
    """The browser has asked this server alone, and reported nothing: no refused file, no error of the script."""
    requests = [e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"]
    assert any(url.endswith("/complete") for url in requests)
    assert all(url.startswith((f"{server.url}/", f"blob:{server.url}/")) for url in requests), requests
    check_no_trouble(page)


def check_no_trouble(page):
    trouble = [e for e in page.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert not trouble, trouble


@pytest.mark.browser
def test_a_stroke_is_that_of_one_pointer(server, tmp_path):
    """Neither Ctrl+Z nor a second finger changes the line that is being drawn."""

    async def press_undo_and_draw_on():
        async with open_page(f"{server.url}/", tmp_path) as page:
            await choose_example(page, 0)
            await page.evaluate("document.getElementById('hole').scrollIntoView({block: 'center'})")
            box = "(({x, y}) => [x, y])(document.getElementById('hole').getBoundingClientRect())"
            left, top = await page.evaluate(box)

            async def mouse(kind, x):
                place = {"x": left + x, "y": top + 50}
                await page.send("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1, **place)

            async def fingers(kind, *places):
                points = [{"x": left + x, "y": top + y, "id": number} for number, (x, y) in enumerate(places)]
                await page.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)

            async def undo():
                for kind in ("keyDown", "keyUp"):
                    await page.send("Input.dispatchKeyEvent", type=kind, key="z", code="KeyZ", modifiers=2)

            lengths = "strokes.map((one) => one.points.length)"
            await mouse("mousePressed", 20)
            await undo()
            await mouse("mouseMoved", 40)
            await mouse("mouseReleased", 40)
            await mouse("mouseMoved", 60)
            assert await page.evaluate(lengths) == [2]
            await fingers("touchStart", (20, 80))
            await fingers("touchStart", (20, 80), (90, 90))
            await fingers("touchMove", (50, 80), (90, 120))
            await fingers("touchEnd")
            assert await page.evaluate(lengths) == [2, 2]
            heights = await page.evaluate("strokes[1].points.map((one) => one.y)")
            assert heights[0] == heights[1]
            await undo()
            assert await page.evaluate(lengths) == [2]
            check_no_trouble(page)

    asyncio.run(press_undo_and_draw_on())


# Keeps the addresses of pictures in memory that are not given back.
COUNTING = """
var open_urls = new Set([picture.src]);
const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
URL.createObjectURL = (blob) => { const url = make(blob); open_urls.add(url); return url; };
URL.revokeObjectURL = (url) => { open_urls.delete(url); drop(url); };
"""


@pytest.mark.browser
def test_a_server_that_is_gone_is_said(server, tmp_path):
    """And of the pictures that were chosen one address is left."""

    async def choose_and_ask():
        async with open_page(f"{server.url}/", tmp_path) as page:
            await choose_example(page, 0)
            await page.evaluate(COUNTING)
            await page.evaluate("choose(new Blob(['x']), 'x')")
            await page.wait_for("document.getElementById('error').textContent.startsWith('x: this browser')")
            await page.evaluate("choose(chosen.blob, 'y'); choose(chosen.blob, 'z')")
            assert await page.evaluate("open_urls.size") == 1
            await page.send("Network.setBlockedURLs", urls=["*/examples/*", "*/about"])
            said = "document.getElementById('error').textContent"
            for ask in ("document.querySelectorAll('.examples button')[1].click()", "start().catch(report)"):
                await page.evaluate(f"fail(''); {ask}; 0")
                assert (await page.wait_for(said)).startswith("the server does not answer")

    asyncio.run(choose_and_ask())


@pytest.mark.browser
def test_an_error_of_the_server_is_shown(server, tmp_path):
    """And a brush that only erases leaves a hole that is empty."""

    async def erase():
        async with open_page(f"{server.url}/", tmp_path) as page:
            await choose_example(page, 0)
            await page.evaluate("document.getElementById('erase').click()")
            await paint(page, [(0.4, 0.4), (0.5, 0.5)])
            await page.evaluate("document.getElementById('complete').click()")
            text = await page.wait_for("document.getElementById('error').textContent")
            assert text == "hole.png: the hole is empty; paint over what is to be completed"
            assert not await page.evaluate("document.getElementById('complete').disabled")

    asyncio.run(erase())
