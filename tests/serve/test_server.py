import asyncio
import io
import re
import socket
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from PIL import Image

from collagan_dist.faces.render import draw_face
from collagan_dist.inference.complete import complete
from collagan_dist.serve import server as module
from collagan_dist.serve.completion import CompletionAnswer
from tests.serve.conftest import form, serving


def png(mode="RGB", size=(200, 240), colour=99, form="PNG", **options):
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, form, **options)
    return buffer.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_completion_is_that_of_the_command_and_leaves_nothing(server, two_runs, photo, hole, tmp_path, monkeypatch):
    """Bit for bit; every pixel outside the hole is the picture's; nothing is written where temporary files go."""
    complete(two_runs[0], photo, tmp_path / "out", str(hole))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    written = []
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *a, **k: written.append(a))
    answer = server.complete("run", photo, hole)
    assert answer.status == 200 and not written and not list((tmp_path / "temporary").iterdir())
    assert answer.parts["completed"] == (tmp_path / "out/somebody.completed.png").read_bytes()
    given, done, inside = (
        cv2.imread(str(photo))[..., ::-1],
        pixels(answer.parts["completed"]),
        cv2.imread(str(hole)) > 0,
    )
    assert np.array_equal(given[~inside], done[~inside]) and not np.array_equal(given[inside], done[inside])
    other = server.complete("run (2)", photo, hole)
    assert set(other.parts) == {"facts"} and np.shape(other.facts["landmarks"]) == (1, 5, 2)
    again = server.complete("run", photo, hole, blend="poisson")
    assert again.status == 200 and again.parts["completed"] != answer.parts["completed"]


DAMAGED = "the form is damaged; send it again"
BAD = {
    "not a picture": (b"text", None, 422, "picture.png: damaged, or not a picture"),
    "empty": (b"", None, 422, "picture.png: is an empty file"),
    "truncated": (lambda photo: photo[: len(photo) // 2], None, 422, "picture.png: damaged, or not a picture"),
    "truncated JPEG": (png(form="JPEG")[:-30], None, 422, "picture.png: damaged JPEG"),
    "bomb": (png("L", (9000, 9000)), None, 422, "decompression bomb"),
    "16 bits": (cv2.imencode(".png", np.full((240, 200, 3), 30_001, np.uint16))[1].tobytes(), None, 422, "16 bits a channel"),
    "GIF": (png(form="GIF"), None, 422, "is GIF, which is not read"),
    "CMYK": (png("CMYK", form="JPEG"), None, 422, "wrong mode CMYK"),
    "transparent": (png("RGBA", colour=(1, 2, 3, 4)), None, 422, "with transparency"),
    "small": (png(size=(31, 240)), None, 422, "smaller than 32x32"),
    "no picture": (None, None, 400, "picture: there is none"),
    "no hole": (png(), "none", 422, "picture.png: there is no hole"),
    "hole of another size": (png(), png("L", (100, 120), 255), 422, r"hole and picture differ in size (100x120 and 200x240)"),
    "empty hole": (png(), png("L", colour=0), 422, "hole.png: the hole is empty"),
    "full hole": (png(), png("L", colour=255), 422, "hole.png: the hole is the whole picture"),
    "grey hole": (png(), png("L", colour=128), 422, "cannot be used as a hole: is grey"),
    "no hole file": (png(), b"text", 422, "hole.png: cannot be used as a hole"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_completed_is_said(case, server, photo, hole, two_runs):
    picture, painted, status, text = BAD[case]
    picture = picture(photo.read_bytes()) if callable(picture) else picture
    answer = server.complete("run", picture, {None: hole, "none": None}.get(painted, painted))
    assert (answer.status, list(answer.json)) == (status, ["error"]) and text in answer.json["error"]
    assert str(two_runs[0].parent) not in answer.json["error"]
    assert server.complete("run (2)", photo).status == 200  # it goes on


def test_orientation_and_names_of_uploads(server, photo, hole, two_runs, tmp_path):
    """A picture is taken as a viewer shows it; of a path that is sent, the last part names it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned").mkdir()
    # Of the same name, from which random numbers derive.
    Image.open(photo).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned" / photo.name, exif=exif)
    turned, plain = server.complete("run", tmp_path / "turned" / photo.name, hole), server.complete("run", photo, hole)
    assert turned.parts == plain.parts
    data = aiohttp.FormData({"model": "run"}, quote_fields=False)  # as browsers write names
    data.add_field("picture", b"text", filename="../../etc/pass\u202ewd")  # which turns the text around
    answer = asyncio.run(server.asked("POST", "/complete", data))
    assert answer.json["error"].startswith("passwd: damaged")


def test_forms_that_are_no_forms(server, photo, hole, capsys):
    def asked(data, **headers):
        answer = asyncio.run(server.asked("POST", "/complete", data, **headers))
        return answer.status, answer.json["error"]

    assert asked(b"{}", **{"Content-Type": "application/json"})[0] == 400
    assert asked(b"xx", **{"Content-Type": "multipart/form-data; boundary=yy"})[0] == 400
    assert asked(b"xx", **{"Content-Type": "multipart/form-data"})[0] == 400
    multipart = {"Content-Type": "multipart/form-data; boundary=yy"}
    for head in (b"Content-Disposition: " + bytes(9000).replace(b"\0", b"x"), b"no header", b"\0: x"):
        assert asked(b"--yy\r\n" + head + b"\r\n\r\nx\r\n--yy--\r\n", **multipart) == (400, DAMAGED), head
    assert asked(zlib.compress(b"xx")[:5], **multipart, **{"Content-Encoding": "gzip"}) == (400, DAMAGED)
    assert "a field that is not known" in asked(form("run", photo, hole, other="x"))[1]
    assert asked(form("other", photo, hole)) == (400, "model: give one of run, run (2)")
    assert asked(form("run", photo, hole, blend="maybe")) == (400, "blend: give one of none, poisson")
    assert server.get("/complete").status == 405 and server.get("/examples/7.png").status == 404
    for path in ("/../pyproject.toml", "/page.html", "/examples/", "/%2e%2e/server.py", "/serve/server.py"):
        answer = server.get(path)
        assert answer.status == 404 and list(answer.json) == ["error"]
    assert capsys.readouterr().err == ""


def begun(server, body=b"", length=1000):
    """A connection that has sent the head of a form and a part of its body, and that the server holds."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 60)
    connection.sendall(
        f"POST /complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n"
        "Content-Type: multipart/form-data; boundary=yy\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body)
    return connection


def test_whoever_goes_away_while_sending_leaves_no_trace(server, photo, capsys):
    for body in (b"", b"--yy\r\n", b'--yy\r\nContent-Disposition: form-data; name="picture"\r\n\r\nxx'):
        for _ in range(module.MAX_REQUESTS):
            begun(server, body).close()
        assert when_free(server, photo).status == 200
    assert capsys.readouterr().err == ""


def when_free(server, photo):
    while (answer := server.complete("run (2)", photo)).status == 503:
        time.sleep(0.05)
    return answer


def whole_form(photo):
    """The bytes of a form that asks the second model."""
    fields = ((b"model", b"run (2)"), (b"picture", photo.read_bytes()))
    parts = [b'--yy\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in fields]
    return b"".join(parts) + b"--yy--\r\n"


def test_whoever_goes_away_while_waiting_is_not_completed(server, photo, monkeypatch):
    original, names, go_on, at_work = module.complete_upload, [], threading.Event(), threading.Event()

    def watched(model, asked):
        names.append(asked.picture.name)
        at_work.set()
        assert go_on.wait(60)
        return original(model, asked)

    monkeypatch.setattr(module, "complete_upload", watched)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.complete, "run (2)", photo)
        assert at_work.wait(60)
        body = whole_form(photo)
        for _ in range(2):
            begun(server, body, len(body)).close()
        assert server.get("/about").status == 200  # after them
        go_on.set()
        assert first.result().status == 200
    assert when_free(server, photo).status == 200
    assert names == ["somebody.png"] * 2  # theirs have no name but that of the field


def test_an_answer_that_is_not_read_holds_its_place_for_a_time(server, photo, monkeypatch):
    """So that no more than MAX_REQUESTS are in memory."""
    large, small = CompletionAnswer({}, bytes(50_000_000), None), CompletionAnswer({}, None, None)
    # The file of a client that reads has a name.
    monkeypatch.setattr(module, "complete_upload", lambda _, asked: large if asked.picture.name == "picture" else small)
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 60)
    body = whole_form(photo)
    silent = [begun(server, body, len(body)) for _ in range(module.MAX_REQUESTS)]
    for connection in silent:
        connection.recv(1, socket.MSG_PEEK)  # its answer has begun
    assert server.complete("run", photo).status == 503
    for connection in silent:
        connection.close()
    assert when_free(server, photo).status == 200
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.2)
    silent = [begun(server, body, len(body)) for _ in range(module.MAX_REQUESTS)]
    assert when_free(server, photo).status == 200
    # The answer to the last one was computed after theirs; by now the time of all is over, also on a loaded machine.
    time.sleep(2)
    for connection in silent:
        with connection:
            cut = b""
            while some := connection.recv(1_000_000):
                cut += some
        assert cut.startswith(b"HTTP/1.1 200 ") and len(cut) < len(large.completed)


def test_all_interfaces_are_those_of_both_kinds():
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with module._listen("::", 0) as listener:
        for address in ("127.0.0.1", "::1"):
            socket.create_connection((address, listener.getsockname()[1]), 60).close()


@pytest.mark.parametrize("declared", [True, False])
def test_too_much_is_refused(declared, server, hole, monkeypatch):
    """By the length that is declared, or by counting."""
    monkeypatch.setattr(module, "MAX_UPLOAD_BYTES", 1_000_000)

    async def body():
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        for _ in range(20):
            yield bytes(100_000)

    data = form("run", bytes(2_000_000), hole) if declared else body()
    headers = {} if declared else {"Content-Type": "multipart/form-data; boundary=x"}
    answer = asyncio.run(server.asked("POST", "/complete", data, **headers))
    assert answer.status == 413 and answer.json["error"].startswith("the picture has more than 1 MB")


def test_one_at_a_time_and_a_bounded_queue(server, photo, hole, monkeypatch):
    """Of many requests at once a few are held and answered, the others are told to come again; never do two compute."""
    at_work, told = threading.Lock(), threading.Event()
    original = module.complete_upload

    def watched(*args):
        assert at_work.acquire(blocking=False)
        try:
            assert told.wait(60)  # until all others have been told to come again
            return original(*args)
        finally:
            at_work.release()

    monkeypatch.setattr(module, "complete_upload", watched)

    async def many():
        count = module.MAX_REQUESTS + 5
        asked = asyncio.as_completed(
            [server.asked("POST", "/complete", form("run", photo, hole)) for _ in range(count)]
        )
        busy = [await next(asked) for _ in range(5)]
        told.set()
        return busy, [await one for one in asked]

    busy, done = asyncio.run(many())
    assert [a.status for a in busy] == [503] * 5 and [a.status for a in done] == [200] * module.MAX_REQUESTS
    assert len({answer.parts["completed"] for answer in done}) == 1
    assert "waiting to be completed" in busy[0].json["error"] and busy[0].headers["Retry-After"]


def test_an_error_of_the_server_has_no_path(server, photo, hole, monkeypatch, capsys):
    monkeypatch.setattr(module, "complete_upload", lambda *_: Path("/a/secret/path").read_text())
    answer = server.complete("run", photo, hole)
    assert (answer.status, answer.json) == (500, {"error": "the server failed; its terminal says why"})
    assert "/a/secret/path" in capsys.readouterr().err


def test_what_the_page_is_told(server, two_runs):
    about = server.get("/about").json
    assert [(m["name"], m["kind"], m["size"]) for m in about["models"]] == [
        ("run", "M*_isd", 32),
        ("run (2)", "M_d", 32),
    ]
    assert str(two_runs[0].parent) not in str(about)
    for number in range(1, about["examples"] + 1):
        answer = server.get(f"/examples/{number}.png")
        assert np.array_equal(pixels(answer.body), draw_face(module._EXAMPLE_SEED, number)[0])


def test_strangers_are_refused(server, two_runs, photo, hole):
    for path in ("/", "/about", "/page.js", "/examples/1.png", "/none"):
        assert server.get(path, Host="evil.example").status == 403
    assert server.complete("run", photo, hole, Origin="http://evil.example").status == 403
    assert server.complete("run", photo, hole, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    with serving(two_runs[1], token="secret") as guarded:
        for path in ("/", "/about", "/page.css", "/examples/1.png", "/?token=no"):
            answer = guarded.get(path)
            assert answer.status == 403 and "open the address" in answer.json["error"]
        assert guarded.complete("run", photo).status == 403
        first = guarded.get("/?token=secret")
        cookie = re.match(r"(collagan-\d+=secret); HttpOnly; Path=/; SameSite=Strict$", first.headers["Set-Cookie"])
        assert first.status == 200 and guarded.complete("run", photo, Cookie=cookie[1]).status == 200


def test_every_answer_has_the_headers(server, photo, hole):
    answers = [
        server.get(path) for path in ("/", "/page.js", "/base.css", "/icon.svg", "/about", "/none", "/examples/1.png")
    ]
    for answer in [*answers, server.get("/", Host="evil.example"), server.complete("run", photo, hole)]:
        assert module.HEADERS.items() <= answer.headers.items()
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
