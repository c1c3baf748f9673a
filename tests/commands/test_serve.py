"""`collagan serve` as a user runs it; tests/serve has its parts."""

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest


def started(*args):
    command = [sys.executable, "-m", "collagan_dist", "serve", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("number", "options"), [(signal.SIGINT, ()), (signal.SIGTERM, ("--token",))])
def test_it_answers_at_the_printed_address_until_a_signal(number, options, trained):
    process = started(trained, "--port", 0, *options)
    try:
        address = process.stdout.readline().strip()
        token = r"\?token=[\w-]{32}" if options else ""
        assert re.fullmatch(rf"http://127\.0\.0\.1:[1-9]\d+/{token}", address)
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200 and b"<h1>Complete a face</h1>" in answer.read()
    finally:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 75 and out == ""
    assert err == "Ctrl-C ends it\ncollagan serve: stopped; the same command serves again\n"


def begun(address, body):
    """A connection that has sent the head of a form, and that the server holds."""
    connection = socket.create_connection(("127.0.0.1", int(re.search(r":(\d+)/", address)[1])), 60)
    connection.sendall(
        f"POST /complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n"
        "Content-Type: multipart/form-data; boundary=yy\r\n\r\n".encode()
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_completion_under_way_is_answered(number, trained, drawn):
    picture = (drawn / "Img/img_celeba/000002.jpg").read_bytes()
    fields = ((b"model", trained.name.encode()), (b"picture", picture), (b"hole", hole_for(picture)))
    parts = [b'--yy\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % field for field in fields]
    body = b"".join(parts) + b"--yy--\r\n"
    process = started(trained, "--port", 0)
    try:
        address = process.stdout.readline().strip()
        assert process.stderr.readline() == "Ctrl-C ends it\n"
        with begun(address, body) as connection:
            process.send_signal(number)
            said = "waiting for 1 completion under way; Ctrl-C again ends at once\n"
            assert process.stderr.readline() == said
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"{address}complete", b"")
            connection.sendall(body)
            answer = b"".join(iter(lambda: connection.recv(1_000_000), b""))
        assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"--\r\n") and b"completed.png" in answer
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (75, "")
    assert err == "collagan serve: stopped; the same command serves again\n"


def hole_for(picture):
    height, width = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    inside = np.zeros((height, width), np.uint8)
    cv2.circle(inside, (width // 2, height // 2), height // 8, 255, -1)
    return cv2.imencode(".png", inside)[1].tobytes()


def test_a_second_signal_ends_at_once(trained):
    process = started(trained, "--port", 0)
    try:
        address = process.stdout.readline().strip()
        assert process.stderr.readline() == "Ctrl-C ends it\n"
        with begun(address, bytes(1000)):
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline().startswith("waiting for 1 completion under way")
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (75, "", "ended without waiting\n")


def test_what_cannot_be_served(trained, collagan, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = collagan("serve", trained, "--port", port)
    assert result.code == 2 and f"127.0.0.1:{port}: cannot be listened on" in result.err
    assert "give another --port, or 0 for a free one" in result.err
    result = collagan("serve", trained, "--port", 0, "--set", "seed=3")
    assert result.code == 2 and "only how a model is evaluated" in result.err
    assert "is no run folder" in collagan("serve", tmp_path, "--port", 0).err
    result = collagan("serve", trained, "--host", "no.such.host.invalid")
    assert result.code == 2 and "this machine knows no such name" in result.err
    assert "'70000' is not a port" in collagan("serve", trained, "--port", 70000).err
    assert "did you mean serve?" in collagan("sreve", trained).err


def test_other_hosts_need_a_token(trained):
    process = started(trained, "--host", "0.0.0.0", "--port", 0)
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(rf"http://{socket.gethostname()}:\d+/\?token=[\w-]{{32}}", address)
        port = re.search(r":(\d+)/", address)[1]
        for path, status in (("/", 403), (f"/?{address.partition('?')[2]}", 200)):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                    found = answer.status
            except urllib.error.HTTPError as error:
                found = error.code
            assert found == status
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert "warning: other machines reach this page, and nothing on the way to them is encrypted" in err
