"""A real HTTP server of a folder, in a thread, that can be told to misbehave; tests/data/stores.py has those of object stores."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

Answer = tuple[int, Mapping[str, str], bytes]


class Server:
    """`faults` holds, by file name, what the next requests of it meet; the last one stays when `forever`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.forever = False
        self.requests: Counter[str] = Counter()
        self.go_on = threading.Event()
        self.disturbed = ["GET", "PUT"]  # which requests meet faults
        self.states_lengths = False  # of an answer cut short: stores do, a plain server need not
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        self.url = f"{self.endpoint}/data"

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return what an undisturbed server answers: status, headers and content."""
        head, _, name = unquote(path).rpartition("/")
        found = self.folder / name
        return (200, {}, found.read_bytes()) if head == "/data" and found.is_file() else (404, {}, b"")

    def refuse(self, status: int) -> Answer:
        """Return the answer of a server that is asked too much or by the wrong person."""
        return status, {}, b""

    def take(self, name: str) -> str:
        with self._lock:
            self.requests[name] += 1
            waiting = self.faults.get(name) or [""]
            return waiting[0] if self.forever or name not in self.faults else waiting.pop(0)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def _work(self) -> None:
                name = unquote(self.path.partition("?")[0]).rpartition("/")[2]
                fault = server.take(name) if self.command in server.disturbed else ""
                if self.headers.get("Expect") == "100-continue":
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if fault == "slow" and self.command == "PUT":
                    server.go_on.wait(60)
                if fault == "flip" and self.command == "PUT":  # damaged on its way, which a store may not notice
                    body = flipped(body)
                if fault in ("503", "403"):
                    self._send(*server.refuse(int(fault)))
                    return
                status, headers, content = server.answer(self.command, self.path, self.headers, body)
                self._send(status, headers, content, fault if self.command == "GET" and status < 300 else "")

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _work

            def _send(self, status: int, headers: Mapping[str, str], content: bytes, fault: str = "") -> None:
                half = len(content) // 2
                if fault == "flip":
                    content = flipped(content)
                if fault == "longer":
                    content += content
                if fault == "short" and server.states_lengths:
                    content, fault = content[:half], ""
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                # Without a length nobody but the manifest knows better.
                if "Content-Length" not in headers and (server.states_lengths or fault not in ("short", "longer")):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if fault in ("short", "drop"):
                    content = content[:half]
                elif fault in ("slow", "pause"):
                    self.wfile.write(content[:half])
                    self.wfile.flush()
                    server.go_on.wait(60 if fault == "slow" else 0.02)
                    content = content[half:]
                self.wfile.write(content)

        return Handler


def flipped(content: bytes) -> bytes:
    """Return content with one bit changed in its middle."""
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]


@contextmanager
def running(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server._http.shutdown()
        server._http.server_close()
        thread.join()


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with running(Server(folder)) as server:
        yield server
