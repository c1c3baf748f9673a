import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest

from collagan_dist.data.packing.pack import pack
from collagan_dist.errors import ClusterError, ConfigError
from collagan_dist.sweep.ray_cluster import check_dashboard, join_cluster
from tests.conftest import collagan
from tests.data.packed import contents, recipe
from tests.faults.processes import free_port
from tests.sweep.ray_nodes import ENVIRONMENT, descendants, power_off, ray_nodes, start_node, wait_for
from tests.sweep.small import HALVING, LR_SPACE, Sweep


def test_ray_packs_the_same_bytes(copy_of_drawn, tmp_path):
    (copy_of_drawn / "Img/img_celeba/000003.jpg").write_bytes(b"")  # quarantined everywhere
    pack(recipe(copy_of_drawn, tmp_path / "here", samples_per_shard=7), workers=1)
    (tmp_path / "recipe.yaml").write_text(
        f"{{dataset: celeba, root: {copy_of_drawn}, labels: Label/img_celeba, out: x, samples_per_shard: 7, store_size: 88}}"
    )
    with ray_nodes(2) as (address, _):
        collagan("pack", tmp_path / "recipe.yaml", "--out", tmp_path / "ray", "--ray", address)
        assert contents(tmp_path / "ray") == contents(tmp_path / "here")
        (copy_of_drawn / "Label/img_celeba/000004.png").unlink()
        failed = collagan("pack", tmp_path / "recipe.yaml", "--out", tmp_path / "no", "--ray", address, check=False)
    assert failed.returncode == 3 and "000004.png: the label map is missing" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stderr
    with pytest.raises(ClusterError, match=f"--ray {address}: no Ray cluster answers"), join_cluster(address):
        pass


def test_row_32_a_local_cluster_accepts_only_its_token_on_loopback(shards, tmp_path, no_nohup):
    """The sweep's own cluster listens on loopback and refuses a client without its token; interrupted, it ends with all processes."""
    token = "a" * 64
    sweep = Sweep(tmp_path, shards.folder, HALVING, "--trials", 3, schedule__steps=50_000)
    with sweep.started(RAY_AUTH_TOKEN=token) as process:
        sweep.until(process, lambda: sweep.saved(0) >= 2)
        (folder,) = Path("/tmp").glob(f"collagan-ray-{process.pid}-*")
        assert folder.stat().st_mode & 0o077 == 0
        listening = [line.split() for line in subprocess.check_output(["ss", "-ltnpH"], text=True).splitlines()]
        family = descendants(process.pid)
        own = [words[3] for words in listening if any(f"pid={pid}," in words[-1] for pid in family)]
        assert own and all(address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:")) for address in own), own
        commands = b" ".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family).replace(b"\0", b" ").decode()
        port = re.search(r"--gcs-address[= ]127\.0\.0\.1:(\d+)", commands)[1]
        code = f"import ray; ray.init(address='127.0.0.1:{port}', log_to_driver=False); print('accepted')"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        clean |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "HOME": str(tmp_path)}
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", code], env=clean | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for env in (
                {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
                {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64},
                {"RAY_AUTH_MODE": "disabled"},
            )
        ]  # fmt: skip
        outputs = [client.communicate(timeout=90)[0] for client in clients]
        assert ["accepted" in text for text in outputs] == [True, False, False], outputs
        # The terminal goes away, which all processes in its foreground are told: Ray's, too.
        os.killpg(process.pid, signal.SIGHUP)
        assert process.wait(60) == 75
    assert not folder.exists() and "the same command continues" in sweep.log.read_text()
    assert [line["event"] for line in sweep.lines(0, "event")][-1] == "interrupted"
    last = time.monotonic() + 60  # Ray's agents look now and then whether they are still needed
    while left := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < last, left
        time.sleep(0.2)


def test_a_dashboard_that_cannot_be_had_is_refused():
    """One of another cluster; and one whose parts are not installed, which are named."""
    with pytest.raises(
        ConfigError, match=r"^--dashboard: is of a cluster that the sweep starts, and --ray auto runs already"
    ):
        check_dashboard("auto")
    if find_spec("opencensus") is None:
        with pytest.raises(
            ConfigError, match=r"not installed here \(.*opencensus.*\): pip install 'collagan_dist\[dashboard\]'"
        ):
            check_dashboard(None)


def status(url: str, token: str = "") -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.dashboard
def test_the_dashboard_is_on_loopback_and_asks_for_its_token(shards, tmp_path):
    sweep = Sweep(tmp_path, shards.folder, HALVING, "--trials", 3, "--dashboard", schedule__steps=50_000)
    with sweep.started() as process:
        sweep.until(process, lambda: sweep.saved(0) >= 2)
        url, token = re.search(
            r"dashboard: (http://127\.0\.0\.1:\d+)\nits token: (\w{64})\n", sweep.log.read_text()
        ).groups()
        assert [status(f"{url}/api/jobs/", one) for one in (token, "", "b" * 64)] == [200, 401, 403]
        family = descendants(process.pid)
        listening = [line.split() for line in subprocess.check_output(["ss", "-ltnpH"], text=True).splitlines()]
        own = [words[3] for words in listening if any(f"pid={pid}," in words[-1] for pid in family)]
        assert own and all(address.startswith(("127.0.0.1:", "[::ffff:127.0.0.1]:")) for address in own), own
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 75, sweep.log.read_text()


@pytest.mark.dashboard
def test_a_job_of_ray_is_stopped_and_goes_on(shards, tmp_path):
    """As docs/tune.md says: `ray job stop` lets trials save, and the same command, submitted again, goes on. Nobody comes in without the token."""
    port, page = free_port(), free_port()
    env = ENVIRONMENT | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_JOB_STOP_WAIT_TIME_S": "300"}
    shown = [
        "--include-dashboard=true",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={page}",
        "--dashboard-agent-listen-port=0",
    ]
    sweep = Sweep(tmp_path, shards.folder, LR_SPACE, "--trials", 2, "--ray", f"127.0.0.1:{port}", schedule__steps=200)

    def job(verb: str, *words: object, code: int = 0) -> str:
        command = [
            Path(sys.executable).with_name("ray"),
            "job",
            verb,
            f"--address=http://127.0.0.1:{page}",
            *map(str, words),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        assert (done.returncode != 0) == bool(code), done.stdout + done.stderr
        return done.stdout + done.stderr

    with (
        patch.dict(os.environ, env),
        tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder,
    ):
        node = start_node(1, "--head", f"--port={port}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1", *shown)
        try:
            wait_for(f"127.0.0.1:{port}", 1)
            job("submit", "--no-wait", "--submission-id=one", "--", *sweep.words)
            sweep.log.write_text("")  # of a job, Ray has it
            sweep.until(node, lambda: sweep.saved(0) >= 4)
            job("stop", "one")
            assert "stopped" in job("status", "one").lower()
            saved = sweep.saved(0)
            assert 4 <= saved < 200
            assert "succeeded" in job("submit", "--submission-id=two", "--", *sweep.words)
            assert sweep.starts(0) == [("start", 0), ("resume", saved)]
            assert [row["status"] for row in sweep.rows()] == ["done", "done"]
            with patch.dict(os.environ, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}):
                assert "uthenticat" in job("list", code=1)
        finally:
            power_off(node)
