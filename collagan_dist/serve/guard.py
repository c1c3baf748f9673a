"""Who may ask the server: checks of the Host header, of the asking page and of the token; and the headers of every answer.

A browser sends requests for any page that it shows, also to this machine. These checks tell our own page from all others.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from collagan_dist.distributed.addresses import is_loopback

# The page needs its own files, pictures that it made itself (blob:), and nothing else.
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address may hold the token
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",  # pictures of faces stay in no cache
    "Server": "collagan",  # without versions
}


@dataclass(frozen=True)
class RequestGuard:
    """What a request must bring. `host` is the name that the user gave, `address` what it means, `token` None where none is needed."""

    host: str
    address: str
    port: int
    token: str | None

    @property
    def cookie(self) -> str:
        """The name of the cookie that holds the token. Cookies are shared by the ports of a host, so it has the port."""
        return f"collagan-{self.port}"

    @property
    def url(self) -> str:
        """The address for people; where all interfaces are bound, by the name of this machine."""
        name = socket.gethostname() if ipaddress.ip_address(self.address).is_unspecified else self.host
        token = f"?token={self.token}" if self.token else ""
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/{token}"

    def problem(self, request: web.Request) -> str | None:
        """Return why a request is refused, None for one that is answered."""
        if not self._knows(request.host):
            return "this name is not one of this server; open the address that it printed"
        if request.method != "GET" and self._comes_from_elsewhere(request):
            return "requests of other pages are not answered"
        if self.token is not None and not self.has_token(request):
            return "the token is missing or wrong; open the address that the server printed, with its token"
        return None

    def has_token(self, request: web.Request) -> bool:
        """Return whether a request has the token, in its address or in the cookie that the page set."""
        given = request.query.get("token") or request.cookies.get(self.cookie) or ""
        # In constant time: how long a comparison takes tells nothing of the token.
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), (self.token or "").encode())

    def _knows(self, host: str) -> bool:
        """Return whether a Host header names this server. A name that a stranger has bent to this address (DNS rebinding) does not.

        The port may be another: of a tunnel, as `ssh -L` makes.
        """
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        # Nobody can bend an address; names are those that the user or this machine gives.
        if name in (self.host.lower(), "localhost"):
            return True
        if is_loopback(self.address):
            return is_loopback(name)
        return name == socket.gethostname().lower() or _is_address(name)

    @staticmethod
    def _comes_from_elsewhere(request: web.Request) -> bool:
        # Browsers send both with every POST; other programs send neither.
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        try:
            foreign = origin is not None and urlsplit(origin).netloc != request.host
        except ValueError:
            foreign = True
        return foreign or site not in (None, "same-origin")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
