import asyncio
import io
import re
import tempfile
import threading
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest
from PIL import Image

from collagan_dist.faces.render import draw_face
from collagan_dist.inference.complete import complete
from collagan_dist.serve import server as module
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


def test_forms_that_are_no_forms(server, photo, hole, monkeypatch):
    def asked(data, **headers):
        answer = asyncio.run(server.asked("POST", "/complete", data, **headers))
        return answer.status, answer.json["error"]

    assert asked(b"{}", **{"Content-Type": "application/json"})[0] == 400
    assert asked(b"xx", **{"Content-Type": "multipart/form-data; boundary=yy"})[0] == 400
    assert asked(b"xx", **{"Content-Type": "multipart/form-data"})[0] == 400
    assert "a field that is not known" in asked(form("run", photo, hole, other="x"))[1]
    assert asked(form("other", photo, hole)) == (400, "model: give one of run, run (2)")
    assert asked(form("run", photo, hole, blend="maybe")) == (400, "blend: give one of none, poisson")
    assert server.get("/complete").status == 405 and server.get("/examples/7.png").status == 404
    for path in ("/../pyproject.toml", "/page.html", "/examples/", "/%2e%2e/server.py", "/serve/server.py"):
        answer = server.get(path)
        assert answer.status == 404 and list(answer.json) == ["error"]


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
    at_work = threading.Lock()
    original = module.complete_upload

    def watched(*args):
        assert at_work.acquire(blocking=False)
        try:
            return original(*args)
        finally:
            at_work.release()

    monkeypatch.setattr(module, "complete_upload", watched)

    async def many():
        return await asyncio.gather(
            *(server.asked("POST", "/complete", form("run", photo, hole)) for _ in range(module.MAX_REQUESTS + 5))
        )

    answers = asyncio.run(many())
    busy = [answer for answer in answers if answer.status == 503]
    done = {answer.parts["completed"] for answer in answers if answer.status == 200}
    assert len(done) == 1 and busy and len(busy) + sum(a.status == 200 for a in answers) == len(answers)
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
