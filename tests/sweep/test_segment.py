import logging
import os
import socket
import sys

import pytest
import torch

from collagan_dist.errors import ClusterError
from collagan_dist.sweep import segment
from collagan_dist.sweep.segment import SegmentSpec, StopFile, rank_variables
from collagan_dist.sweep.worker import train_segment


def test_the_stop_file_asks_to_stop(tmp_path, monkeypatch):
    monkeypatch.setattr(segment, "_POLL_SECONDS", 0.0)
    stop = StopFile(tmp_path / ".stop-1")
    (tmp_path / ".stop-2").touch()  # another start's
    assert not stop
    (tmp_path / ".stop-1").touch()
    assert stop
    (tmp_path / ".stop-1").unlink()
    assert stop


def test_a_segment_leaves_the_environment_as_it_was(monkeypatch):
    """Tune uses the process for another trial."""
    monkeypatch.setenv("RANK", "7")
    monkeypatch.delenv("COLLAGAN_RAY_TRIAL", raising=False)
    spec = SegmentSpec("out/t003", "", {}, 1, 2, False, False, "")
    with pytest.raises(ZeroDivisionError), segment._environment(rank_variables(spec, 1, 2, 0, 1, 1)):
        assert (os.environ["COLLAGAN_RAY_TRIAL"], os.environ["RANK"], os.environ["NODE_RANK"]) == ("out/t003", "1", "1")
        raise ZeroDivisionError
    assert os.environ["RANK"] == "7" and "COLLAGAN_RAY_TRIAL" not in os.environ


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA finds a GPU here")
def test_a_trial_with_a_gpu_does_not_train_on_the_cpu(tmp_path):
    """As with a broken driver: the node is to be left out, so that it is said as a loss by the cluster."""
    spec = SegmentSpec("out/t003", str(tmp_path / "run"), {}, 1, 1, True, False, "")
    with pytest.raises(ClusterError, match=rf"^a GPU of {socket.gethostname()} was given .* nvidia-smi .*--gpus 0\)$"):
        train_segment(spec)
    assert not (tmp_path / "run").exists()


def test_rank_0_writes_the_log(tmp_path):
    """What it prints and logs; lines of several segments follow one another."""
    for text in ("first", "second"):
        with segment._log_file(tmp_path, 0):
            print(text)
            print(text, "error", file=sys.stderr)
            logging.getLogger("collagan_dist.training").info("%s logged", text)
    lines = (tmp_path / "logs/train.txt").read_text().splitlines()
    assert lines == ["first", "first error", "first logged", "second", "second error", "second logged"]
    with segment._log_file(tmp_path / "other", 1):
        print("of another rank")
    assert not (tmp_path / "other").exists()
