import subprocess
import sys

import pytest
import torch
from nvidia.dali import Pipeline

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


def test_without_dali_the_error_names_both_wheels(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(ConfigError, match=r"collagan_dist\[cuda13\]', or \[cuda12\]"):
        Decoder(1, 8, False, False, 1, torch.device("cpu"))


@pytest.mark.parametrize(("labels", "resize"), [(True, True), (True, False), (False, True)])
def test_the_graph_for_a_gpu_is_that_for_a_cpu_on_another_device(labels, resize):
    """It is built and serialised without a GPU: the same operators with the same arguments; pictures end on the GPU, label maps
    (which only resizing brings here) on the CPU.
    """
    found = []
    for device in ("cpu", "mixed"):
        decoder = Decoder.__new__(Decoder)
        decoder.canvas, decoder.labels, decoder.resize = 88, labels, resize
        pipe = Pipeline(batch_size=4, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            outputs = decoder._graph(device)
            pipe.set_outputs(*outputs)
        assert (b"mixed" in pipe.serialize()) == (device == "mixed")
        operators = sorted((op._op._init_args for op in pipe._ops), key=str)
        found.append(([{k: str(v) for k, v in one.items()} for one in operators], [node.device for node in outputs]))
    (on_cpu, _), (on_gpu, devices) = found
    assert on_cpu == on_gpu and any(one.get("jpeg_fancy_upsampling") == "True" for one in on_gpu)
    assert devices == ["gpu"] + ["cpu"] * (labels and resize)
