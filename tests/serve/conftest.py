"""A running server of small models, in a thread, and requests to it."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.inference.model import Model
from collagan_dist.serve.guard import RequestGuard
from collagan_dist.serve.server import Server, build_app, name_models, running
from collagan_dist.training.loop import train
from collagan_dist.types import World
from tests.training.small import small


@dataclass(frozen=True)
class Answer:
    """The status of an HTTP answer, its headers, its JSON, and the parts of its form by name."""

    status: int
    headers: dict[str, str]
    json: Any = None
    parts: dict[str, bytes] = field(default_factory=dict)
    body: bytes = b""

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.parts["facts"])


@dataclass(frozen=True)
class Client:
    """Real HTTP requests to a server."""

    url: str

    async def asked(self, method: str, path: str, data: Any = None, **headers: str) -> Answer:
        asking = {"method": method, "url": self.url + path, "data": data, "headers": headers}
        async with aiohttp.ClientSession() as session, session.request(**asking) as answer:
            kind, given = answer.content_type, dict(answer.headers)
            if kind == "application/json":
                return Answer(answer.status, given, await answer.json())
            if kind != "multipart/form-data":
                return Answer(answer.status, given, body=await answer.read())
            reader = aiohttp.MultipartReader.from_response(answer)
            parts = {part.name: bytes(await part.read()) async for part in reader}
            return Answer(answer.status, given, parts=parts)

    def get(self, path: str, **headers: str) -> Answer:
        return asyncio.run(self.asked("GET", path, **headers))

    def complete(
        self, model: str, picture: Path | bytes, hole: Path | bytes | None = None, blend: str = "none", **headers: str
    ) -> Answer:
        return asyncio.run(self.asked("POST", "/complete", form(model, picture, hole, blend=blend), **headers))


def form(
    model: str, picture: Path | bytes | None, hole: Path | bytes | None, name: str = "picture.png", **more: str
) -> aiohttp.FormData:
    """The fields of a request; `name` is that of a picture in memory."""
    data = aiohttp.FormData({"model": model, **more})
    for field_name, file, default in (("picture", picture, name), ("hole", hole, "hole.png")):
        if file is not None:
            content, shown = (file, default) if isinstance(file, bytes) else (file.read_bytes(), file.name)
            data.add_field(field_name, content, filename=shown, content_type="image/png")
    return data


@contextmanager
def serving(*folders: Path, token: str | None = None) -> Iterator[Client]:
    """Answer for models on a free port of loopback."""
    models = name_models([Model.load(folder) for folder in folders])
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        guard = RequestGuard("127.0.0.1", *listener.getsockname(), token)

        async def answer() -> None:
            async with running(build_app(Server(models, guard)), listener):
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(answer(),))
        thread.start()
        try:
            assert ready.wait(60)
            yield Client(f"http://127.0.0.1:{guard.port}")
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


@pytest.fixture(scope="session")
def two_runs(shards: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run folders, of one name, of a small M*_isd whose fill is random and that tells some parts, and of a small M_d."""
    folder = tmp_path_factory.mktemp("served")
    tells: dict[str, Any] = {"model__widths": {"generator": 8, "discriminator": 4}, "optim__generator": {"lr": 0.005},
                             "schedule__steps": 60, "schedule__adv_from": 60, "schedule__batch": 8}  # fmt: skip
    train(small(shards.folder, **tells), folder / "a/run", World())
    train(small(shards.folder, model__tasks=["landmarks"], schedule__steps=2), folder / "b/run", World())
    return folder / "a/run", folder / "b/run"


@pytest.fixture(scope="session")
def server(two_runs: tuple[Path, Path]) -> Iterator[Client]:
    with serving(*two_runs) as client:
        yield client


@pytest.fixture
def photo(drawn: Path, tmp_path: Path) -> Path:
    """A photograph of 200x240 pixels with a name of its own."""
    pixels = cv2.resize(cv2.imread(str(drawn / "Img/img_celeba/000002.jpg")), (200, 240), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "somebody.png"), pixels)
    return tmp_path / "somebody.png"


@pytest.fixture
def hole(tmp_path: Path) -> Path:
    """A hole for it."""
    inside = np.zeros((240, 200), np.uint8)
    cv2.circle(inside, (110, 120), 30, 255, -1)
    cv2.imwrite(str(tmp_path / "painted.png"), inside)
    return tmp_path / "painted.png"
