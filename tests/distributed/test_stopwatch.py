import time

import torch

from collagan_dist.distributed.stopwatch import Stopwatch


def test_pauses_do_not_count():
    stopwatch = Stopwatch(torch.device("cpu"))
    assert not stopwatch.pause()  # nothing to resume outside a lap
    for _ in range(2):
        with stopwatch:
            time.sleep(0.05)
            assert stopwatch.pause() and not stopwatch.pause()
            time.sleep(0.3)
            stopwatch.resume()
    assert 0.05 <= stopwatch.pop_mean_seconds() < 0.3
    assert stopwatch.pop_mean_seconds() == 0
