"""Object stores on this machine that can be told to misbehave: S3 is moto's server, Hugging Face's hub the requests of its driver."""

import http.client
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

from tests.data.server import Answer, Server, running

# The driver of S3 tries often itself; the tests count our tries.
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "S3-CANARY", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}  # fmt: skip


class S3(Server):
    """Passes requests on to moto's server. Objects lie in `bucket`, those of a folder below data/."""

    def __init__(self, moto: int, bucket: str) -> None:
        super().__init__(Path())
        self.moto, self.bucket, self.states_lengths = moto, bucket, True
        self.url = f"s3://{bucket}/data"
        self.write("", b"")

    def upload(self, folder: Path) -> None:
        for path in folder.iterdir():
            self.write(f"data/{path.name}", path.read_bytes())

    def write(self, name: str, content: bytes) -> None:
        signed = {"Authorization": "AWS somebody:unchecked"}  # nobody else may replace an object
        status, _, said = self.answer("PUT", f"/{self.bucket}/{name}".rstrip("/"), signed, content)
        assert status == 200, said

    def names(self, folder: str = "") -> list[str]:
        """Return the names of all objects below a folder."""
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.moto}")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
        return sorted(item["Key"].removeprefix(folder) for page in pages for item in page.get("Contents", []))

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.moto)
        try:
            connection.request(method, path, body, {k: v for k, v in headers.items() if k.lower() != "content-length"})
            response = connection.getresponse()
            hop = ("connection", "transfer-encoding", "content-length", "date", "server")
            kept = {key: value for key, value in response.getheaders() if key.lower() not in hop}
            if method == "HEAD" and (length := response.getheader("Content-Length")):
                kept["Content-Length"] = length
            return response.status, kept, response.read()
        finally:
            connection.close()

    def refuse(self, status: int) -> Answer:
        code = {403: "AccessDenied", 503: "SlowDown"}[status]
        text = f"<Error><Code>{code}</Code><Message>{code} by {self.bucket}</Message></Error>"
        return status, {"Content-Type": "application/xml"}, text.encode()


class Hub(Server):
    """The data set somebody/faces, whose folder data/ is a local folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url, self.states_lengths = "hf://datasets/somebody/faces/data", True

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        path = unquote(path.partition("?")[0])
        repository = "/api/datasets/somebody/faces"
        if path in (repository, f"{repository}/revision/main"):
            facts = {"id": "somebody/faces", "sha": "0" * 40, "private": False, "tags": [], "downloads": 0, "likes": 0}
            return 200, {"Content-Type": "application/json"}, json.dumps(facts).encode()
        if path == f"{repository}/tree/main/data":
            listed = [
                {"type": "file", "path": f"data/{file.name}", "size": file.stat().st_size, "oid": "0" * 40}
                for file in sorted(self.folder.iterdir())
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(listed).encode()
        file = self.folder / path.rpartition("/")[2]
        if path == f"/datasets/somebody/faces/resolve/main/data/{file.name}" and file.is_file():
            return 200, {}, file.read_bytes()
        known = path.startswith((f"{repository}/", "/datasets/somebody/faces/"))
        return 404, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"}, b""


@contextmanager
def s3_store(moto: int, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """A new bucket, to which the environment's endpoint and credentials lead."""
    from s3fs import S3FileSystem

    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with running(S3(moto, bucket)) as store:
        assert isinstance(store, S3)
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
        S3FileSystem.clear_instance_cache()  # they are known by options, and the endpoint is none
        yield store
        S3FileSystem.clear_instance_cache()


@contextmanager
def hub_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    # Its own tries have pauses of 23 s in all.
    monkeypatch.setattr(
        _http, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time, monotonic=time.monotonic)
    )
    with running(Hub(folder)) as store:
        before = constants.ENDPOINT  # read from the environment when it is imported, as the template is
        for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
            monkeypatch.setattr(constants, name, getattr(constants, name).replace(before, store.endpoint))
        monkeypatch.setenv("HF_ENDPOINT", store.endpoint)
        yield store


@contextmanager
def moto_server() -> Iterator[int]:
    """Run moto's S3, and yield its port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()[1]
    finally:
        server.stop()
