import json
import subprocess
import sys

import pytest
import torch

from collagan_dist.data.loading.decode import Decoder
from collagan_dist.errors import ConfigError

BROKEN = """
import sys
import numpy as np, torch
from collagan_dist.data.loading.decode import Decoder
from collagan_dist.data.shards.manifest import read_manifest
from collagan_dist.data.shards.shard_reader import SplitReader

split = SplitReader(read_manifest(sys.argv[1]), "train")
samples = [split.read(number) for number in range(32)]
decode = Decoder(32, 88, True, False, 2, torch.device("cpu"))
for number in range(120):
    broken = list(samples)
    for place in (number % 32, (7 * number + 3) % 32):
        jpg, labels = samples[place].jpg.copy(), samples[place].labels.copy()
        jpg[(slice(2, 200), slice(0), slice(None))[number % 3]] = 0
        labels[(slice(0), slice(40, None), slice(None))[number % 3]] = 0
        broken[place] = samples[place]._replace(jpg=jpg, labels=labels)
    try:
        decode(broken, np.zeros((32, 4)))
    except RuntimeError:
        continue
    sys.exit("decoded")
"""


def test_bytes_that_do_not_parse_are_an_error_and_no_crash(shards):
    """DALI alone crashes (a segmentation fault) within 40 batches of each kind."""
    result = subprocess.run([sys.executable, "-c", BROKEN, str(shards.folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]


def test_without_dali_a_gpu_is_refused_with_both_wheels(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"collagan_dist\[cuda13\]', or \[cuda12\]"):
        Decoder(1, 8, False, False, 1, torch.device("cuda"))


WITHOUT_DALI = """
import sys
sys.modules["nvidia.dali"] = None
from collagan_dist.commands.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_without_dali_the_same_is_learned_on_a_cpu(shards, tmp_path):
    """To the difference of two decoders; and it is said which one decodes."""
    losses = []
    for start in (["-c", WITHOUT_DALI], ["-m", "collagan_dist"]):
        run = tmp_path / str(len(losses))
        options = [
            "--data",
            str(shards.folder),
            "--run",
            str(run),
            "--set",
            "schedule.steps=2",
            "--set",
            "schedule.batch=4",
            "--set",
            "log.every=1",
        ]
        done = subprocess.run(
            [sys.executable, *start, "train", "demo", *options], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr.count("pictures are decoded by libjpeg-turbo") == (start[0] == "-c")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss/total"] for line in lines if line["kind"] == "train"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
