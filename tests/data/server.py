"""A real HTTP server of a folder, in a thread, that can be told to misbehave."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Server:
    """`faults` holds, by file name, what the next requests of it meet; the last one stays when `forever`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[str]] = {}
        self.forever = False
        self.requests: Counter[str] = Counter()
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/data"

    def _take(self, name: str) -> str:
        with self._lock:
            self.requests[name] += 1
            waiting = self.faults.get(name) or [""]
            return waiting[0] if self.forever or name not in self.faults else waiting.pop(0)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                head, _, name = unquote(self.path).rpartition("/")
                path = server.folder / name
                fault = server._take(name)
                if head != "/data" or not path.is_file():
                    return self.send_error(404)
                if fault in ("503", "403"):
                    return self.send_error(int(fault))
                content = path.read_bytes()
                half = len(content) // 2
                if fault == "flip":
                    content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
                if fault == "longer":
                    content += content
                self.send_response(200)
                if fault not in ("short", "longer"):  # without a length nobody but the manifest knows better
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if fault in ("short", "drop"):
                    self.wfile.write(content[:half])
                    return None
                if fault in ("slow", "pause"):
                    self.wfile.write(content[:half])
                    server.go_on.wait(60 if fault == "slow" else 0.02)
                    content = content[half:]
                self.wfile.write(content)
                return None

            def do_HEAD(self) -> None:
                path = server.folder / unquote(self.path).rpartition("/")[2]
                if not path.is_file():
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(path.stat().st_size))
                self.end_headers()
                return None

        return Handler


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    thread = threading.Thread(target=server._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.go_on.set()
        server._http.shutdown()
        server._http.server_close()
        thread.join()
