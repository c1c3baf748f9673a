"""The HTTP server of `collagan serve`: one page, its files, drawn examples, and completions, one at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from aiohttp import BodyPartReader, MultipartWriter, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from collagan_dist import __version__
from collagan_dist.config.load import model_label
from collagan_dist.distributed.addresses import is_loopback, resolve
from collagan_dist.errors import CollaganError, ConfigError, DataError, Interrupted
from collagan_dist.faces.render import draw_face
from collagan_dist.inference.evaluate import BLENDS
from collagan_dist.inference.grids import encode_png
from collagan_dist.inference.model import Model
from collagan_dist.serve.completion import CompletionAnswer, CompletionRequest, complete_upload
from collagan_dist.serve.guard import HEADERS, RequestGuard
from collagan_dist.tasks.segmentation import PALETTE
from collagan_dist.types import CLASSES, MAX_PIXELS, FileInMemory

logger = logging.getLogger(__name__)

MAX_UPLOAD_BYTES = 200_000_000  # of picture and hole together: the largest photographs as PNG
# Requests that are read, wait, compute or are answered at the same time; each may hold an upload and pictures in memory.
MAX_REQUESTS = 4
_UPLOAD_SECONDS = 120
_ANSWER_SECONDS = 120  # in which a client must read its answer
_POLL_SECONDS = 0.05
_MAX_NAME = 100  # characters of a picture's name in messages
_EXAMPLES, _EXAMPLE_SEED = 6, 20
_HERE = Path(__file__).parent
# Nothing else is served: a path is looked up here, and never in a folder.
_FILES = {
    "/": _HERE / "page.html",
    "/page.css": _HERE / "page.css",
    "/page.js": _HERE / "page.js",
    "/icon.svg": _HERE / "icon.svg",
    "/base.css": _HERE.parent / "report/base.css",  # the style of all pages
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedUpload(Exception):
    """A request that cannot be answered: the HTTP status and the text for the person."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def serve(folders: Sequence[Path], host: str, port: int, with_token: bool, sets: Sequence[str] = ()) -> None:
    """Answer on `host` and `port` (0: a free one) until Ctrl-C or TERM; then raise Interrupted.

    The address is printed when it answers. `sets` are those of Model.load. Raises ConfigError, and CheckpointError for weights
    that are missing or damaged.
    """
    listener = _listen(host, port)  # before the models, which take longer
    with listener:
        address, port = listener.getsockname()[:2]
        token = secrets.token_urlsafe(24) if with_token or not is_loopback(address) else None
        guard = RequestGuard(host, address, port, token)
        if not is_loopback(address):
            logger.warning("warning: other machines reach this page, and nothing on the way to them is encrypted")
        server = Server(name_models([Model.load(folder, sets) for folder in folders]), guard)
        asyncio.run(_answer_until_signal(server, listener))
    raise Interrupted("stopped; the same command serves again")


def _listen(host: str, port: int) -> socket.socket:
    address = resolve(host)
    if address is None:
        raise ConfigError(f"--host {host}: this machine knows no such name; give an address of it, or leave it out")
    try:
        if ":" not in address:
            return socket.create_server((address, port), backlog=64)
        # `::` means all interfaces, and the address that is printed is this machine's name, which often means IPv4.
        both = socket.has_dualstack_ipv6()
        return socket.create_server((address, port), family=socket.AF_INET6, backlog=64, dualstack_ipv6=both)
    except OSError as error:
        hint = "give another --port, or 0 for a free one" if port else "give an address of this machine"
        raise ConfigError(f"{host}:{port}: cannot be listened on ({error.strerror}); {hint}") from None


def name_models(models: Sequence[Model]) -> dict[str, Model]:
    """Return models by the names of their folders, without what lies above; equal ones are numbered."""
    named, seen = {}, Counter[str]()
    for model in models:
        name = model.folder.resolve().name
        seen[name] += 1
        named[name if seen[name] == 1 else f"{name} ({seen[name]})"] = model
    return named


async def _answer_until_signal(server: Server, listener: socket.socket) -> None:
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            # Not sys.exit: Python would wait for the thread that computes.
            logger.info("ended without waiting")
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(Interrupted.exit_code)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    async with running(build_app(server), listener):
        print(server.guard.url, flush=True)  # the address alone, so that scripts can open it
        logger.info("Ctrl-C ends it")
        await stopped.wait()
        await server.finish()


@asynccontextmanager
async def running(app: web.Application, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on a listening socket inside the block."""
    # No log of accesses: addresses may hold the token, and nobody needs to know who completed what.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()


def build_app(server: Server) -> web.Application:
    """Return the application whose requests a server answers."""
    app = web.Application(middlewares=[server.guarded], client_max_size=MAX_UPLOAD_BYTES)
    app.on_response_prepare.append(_add_headers)
    for path in _FILES:
        app.router.add_get(path, server.file)
    app.router.add_get("/about", server.about)
    app.router.add_get(r"/examples/{number:[1-9]}.png", server.example)
    app.router.add_post("/complete", server.complete)
    return app


async def _add_headers(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(HEADERS)


class Server:
    """The handlers of requests, which the guard lets in, for models by name.

    One request computes at a time; MAX_REQUESTS are held, and further ones are told to come again.
    """

    def __init__(self, models: Mapping[str, Model], guard: RequestGuard) -> None:
        self.models, self.guard = models, guard
        self.contents = {path: file.read_bytes() for path, file in _FILES.items()}
        self.computing = asyncio.Lock()
        self.held = 0
        self.stopping = False

    async def finish(self) -> None:
        """Take no further completions, and return when those that are held are answered."""
        self.stopping = True
        if self.held:
            plural = "s" if self.held > 1 else ""
            logger.info("waiting for %d completion%s under way; Ctrl-C again ends at once", self.held, plural)
        while self.held:
            await asyncio.sleep(_POLL_SECONDS)

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer what the guard lets in, and every error as JSON: {"error": text}."""
        try:
            problem = self.guard.problem(request)
            return _error(403, problem) if problem else await handler(request)
        except RefusedUpload as error:
            return _error(error.status, str(error))
        except DataError as error:
            return _error(422, str(error))
        except ConfigError as error:
            return _error(400, str(error))
        except web.HTTPException as error:
            return _error(error.status, f"{request.path[:_MAX_NAME]}: {error.reason}")
        except Exception as error:
            # What happened is for the terminal: its words may have paths of this machine.
            logger.error(
                "error while answering %s: %s", request.path, error, exc_info=not isinstance(error, CollaganError)
            )
            return _error(500, "the server failed; its terminal says why")

    async def file(self, request: web.Request) -> web.Response:
        path = request.path
        answer = web.Response(body=self.contents[path], content_type=_TYPES[_FILES[path].suffix], charset="utf-8")
        if path == "/" and self.guard.token:
            # So that the page's own requests have it, and its address needs it no longer.
            answer.set_cookie(self.guard.cookie, self.guard.token, httponly=True, samesite="Strict")
        return answer

    async def about(self, request: web.Request) -> web.Response:
        """Return what the page must know: models, classes with their colours, limits."""
        models = [
            {"name": name, "kind": model_label(m.config.model), "tasks": m.tasks, "size": m.size, "step": m.step}
            for name, m in self.models.items()
        ]
        colours = {name: "rgb({}, {}, {})".format(*colour) for name, colour in zip(CLASSES, PALETTE, strict=True)}
        limits = {"bytes": MAX_UPLOAD_BYTES, "pixels": MAX_PIXELS}
        about = {"models": models, "colours": colours, "limits": limits, "examples": _EXAMPLES, "version": __version__}
        return web.json_response(about)

    async def example(self, request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number > _EXAMPLES:
            raise web.HTTPNotFound
        return web.Response(body=await asyncio.to_thread(_draw_example, number), content_type="image/png")

    async def complete(self, request: web.Request) -> web.Response:
        """Answer a form with `model`, `picture`, `hole` and `blend` by one with `facts`, `completed` and `parts`."""
        if self.stopping:
            raise RefusedUpload(503, "the server is being stopped")
        if self.held >= MAX_REQUESTS:
            raise RefusedUpload(503, f"{self.held} pictures are waiting to be completed; try again in a moment")
        # Counted from before it is read until its answer is sent, so that the memory of both is bounded.
        self.held += 1
        try:
            form = await _read_form(request)
            model = self.models.get(_text(form, "model"))
            if model is None:
                raise RefusedUpload(400, f"model: give one of {', '.join(self.models)}")
            if (blend := _text(form, "blend") or "none") not in BLENDS:
                raise RefusedUpload(400, f"blend: give one of {', '.join(BLENDS)}")
            if "picture" not in form:
                raise RefusedUpload(400, "picture: there is none; choose a picture")
            asked = CompletionRequest(form["picture"], form.get("hole"), blend)
            async with self.computing:
                # Whoever has gone away while waiting wants no answer, and the next one can begin.
                if request.transport is None or request.transport.is_closing():
                    raise RefusedUpload(400, "the client has gone away")
                answer = _form_answer(await asyncio.to_thread(complete_upload, model, asked))
            await _send(request, answer)
        finally:
            self.held -= 1
        return answer


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status, headers={"Retry-After": "2"} if status == 503 else None)


async def _send(request: web.Request, answer: web.Response) -> None:
    """Send an answer to its last byte. Whoever does not read it in time is disconnected."""
    # aiohttp keeps the last answer of a connection that stays open.
    answer.force_close()
    if (transport := request.transport) is None:
        return
    transport.set_write_buffer_limits(0)  # so that nothing of it waits in memory when it counts as sent
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await answer.prepare(request)
            await answer.write_eof()
    except (TimeoutError, ConnectionError):
        transport.abort()


@lru_cache(_EXAMPLES)
def _draw_example(number: int) -> bytes:
    picture, _, _ = draw_face(_EXAMPLE_SEED, number)
    return encode_png(picture)


async def _read_form(request: web.Request) -> dict[str, FileInMemory]:
    """Return the fields of a form by name. aiohttp's own `post` would write files to disk. Raises RefusedUpload."""
    if request.content_type != "multipart/form-data":
        raise RefusedUpload(400, "send a form (multipart/form-data) with model, picture and hole")
    if (request.content_length or 0) > MAX_UPLOAD_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(_UPLOAD_SECONDS):
            return await _read_parts(request)
    except TimeoutError:
        raise RefusedUpload(408, f"the upload took more than {_UPLOAD_SECONDS} seconds") from None
    # Of aiohttp's parser; the last two also where the client has gone away, who is then told nothing.
    except (ValueError, AssertionError, HttpProcessingError, web.RequestPayloadError, ConnectionError):
        raise RefusedUpload(400, "the form is damaged; send it again") from None


async def _read_parts(request: web.Request) -> dict[str, FileInMemory]:
    form: dict[str, FileInMemory] = {}
    count = 0
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name not in ("model", "blend", "picture", "hole"):
            raise RefusedUpload(400, "the form has a field that is not known: give model, blend, picture and hole")
        content = bytearray()
        # What is said of the length need not be true, so what comes is counted.
        while chunk := await part.read_chunk():
            count += len(chunk)
            if count > MAX_UPLOAD_BYTES:
                raise _too_large()
            content += chunk
        form[part.name] = FileInMemory(_clean_name(part.filename or part.name), bytes(content))
    return form


def _too_large() -> RefusedUpload:
    megabytes = MAX_UPLOAD_BYTES // 1_000_000
    return RefusedUpload(
        413, f"the picture has more than {megabytes} MB; give a smaller one, or one that is compressed"
    )


def _clean_name(name: str) -> str:
    """Return the last part of a path that a stranger gave, without characters that move a terminal's cursor."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[-_MAX_NAME:] or "picture"


def _text(form: Mapping[str, FileInMemory], field: str) -> str:
    found = form.get(field)
    return found.content.decode("utf-8", "replace") if found else ""


def _form_answer(answer: CompletionAnswer) -> web.Response:
    """Return the results as a form, which browsers and programs take apart without another encoding of the pictures."""
    form = MultipartWriter("form-data")
    fields: list[tuple[str, str, bytes | None]] = [
        ("facts", "application/json", json.dumps(answer.facts).encode()),
        ("completed", "image/png", answer.completed),
        ("parts", "image/png", answer.parts),
    ]
    for name, kind, content in fields:
        if content is not None:
            disposition = f'form-data; name="{name}"' + (f'; filename="{name}.png"' if kind == "image/png" else "")
            form.append(content, {hdrs.CONTENT_TYPE: kind, hdrs.CONTENT_DISPOSITION: disposition})
    return web.Response(body=form, headers={hdrs.CONTENT_TYPE: form.content_type})
