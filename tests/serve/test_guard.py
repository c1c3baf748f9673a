import socket

import pytest
from aiohttp.test_utils import make_mocked_request

from collagan_dist.serve.guard import RequestGuard

LOOPBACK = RequestGuard("127.0.0.1", "127.0.0.1", 8765, None)
OPEN = RequestGuard("0.0.0.0", "0.0.0.0", 8765, "secret")
MYBOX = RequestGuard("MyBox", "127.0.1.1", 8765, None)  # as Debian names the machine
NAMED = RequestGuard("Node7.cluster", "10.1.2.3", 8765, "secret")


def problem(guard, method="GET", path="/", **headers):
    return guard.problem(make_mocked_request(method, path, {k.replace("_", "-"): v for k, v in headers.items()}))


@pytest.mark.parametrize(
    ("guard", "host", "known"),
    [
        (LOOPBACK, "127.0.0.1:8765", True),
        (LOOPBACK, "localhost:9000", True),  # through a tunnel
        (LOOPBACK, "[::1]:8765", True),
        (LOOPBACK, "LOCALHOST", True),
        (LOOPBACK, "evil.example:8765", False),
        (LOOPBACK, "127.0.0.1.evil.example", False),
        (LOOPBACK, "localhost.evil.example", False),
        (LOOPBACK, "10.1.2.3:8765", False),
        (LOOPBACK, "[", False),
        (LOOPBACK, "", False),
        (MYBOX, "mybox:8765", True),
        (MYBOX, "127.0.0.1:8765", True),
        (MYBOX, "evil.example:8765", False),
        (OPEN, f"{socket.gethostname()}:8765", True),
        (OPEN, "10.1.2.3:8765", True),
        (OPEN, "evil.example:8765", False),
        (NAMED, "node7.cluster:8765", True),
        (NAMED, "node8.cluster:8765", False),
    ],
)
def test_names_of_the_server(guard, host, known):
    refused = problem(guard, path="/?token=secret", Host=host)
    assert (refused is None) == known and (known or "open the address that it printed" in refused)


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),  # no browser
        ({"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:9999"}, False),
        ({"Origin": "http://localhost:8765"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
    ],
)
def test_pages_that_may_ask(headers, answered):
    refused = problem(LOOPBACK, "POST", "/complete", Host="127.0.0.1:8765", **headers)
    assert (refused is None) == answered and (answered or "other pages" in refused)


@pytest.mark.parametrize(
    ("path", "cookie", "let_in"),
    [
        ("/?token=secret", "", True),
        ("/page.js", "collagan-8765=secret", True),
        ("/", "", False),
        ("/?token=", "", False),
        ("/?token=secre", "", False),
        ("/?token=secret2", "", False),
        ("/?token=%FF%C3%BC", "", False),
        ("/", "collagan-8766=secret", False),
    ],
)
def test_the_token(path, cookie, let_in):
    refused = problem(OPEN, path=path, Host="10.1.2.3:8765", **({"Cookie": cookie} if cookie else {}))
    assert (refused is None) == let_in and (let_in or "token is missing or wrong" in refused)


def test_the_printed_address():
    assert LOOPBACK.url == "http://127.0.0.1:8765/"
    assert OPEN.url == f"http://{socket.gethostname()}:8765/?token=secret"
    assert RequestGuard("::1", "::1", 1, None).url == "http://[::1]:1/"
