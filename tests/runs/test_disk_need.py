import pytest

from collagan_dist import files
from collagan_dist.config.tree import Checkpoint
from collagan_dist.log import log_to_stderr
from collagan_dist.models.networks import checkpoint_bytes
from collagan_dist.models.registry import estimate_checkpoint_bytes
from collagan_dist.runs import checkpoint
from collagan_dist.runs.disk_need import DiskNeed, need_of_run
from collagan_dist.runs.layout import RunPaths
from tests.models.peers import start
from tests.runs.run_folders import STEPS
from tests.training.small import small


@pytest.mark.parametrize(
    ("saved", "every", "stop_at", "least", "most"),
    [
        ([], 10, 100, 1, 4),  # three that are kept, and the next one beside them
        ([], 10, 25, 1, 3),  # 10, 20 and the last step
        ([], 100, 7, 1, 1),
        ([10, 20, 30], 10, 100, 1, 1),
        ([20, 30], 10, 100, 1, 2),
        ([80, 90, 95], 10, 100, 1, 1),
        ([80, 90, 100], 10, 100, 0, 0),
        ([7], 100, 7, 0, 0),
    ],
)
def test_a_run_needs_what_it_keeps_and_one_more(tmp_path, saved, every, stop_at, least, most):
    for step in saved:
        (tmp_path / f"checkpoints/step-{step:08d}").mkdir(parents=True)
    need = need_of_run(RunPaths(tmp_path), Checkpoint(every=every, keep=3), 1000, stop_at)
    assert (need.least, need.most) == (least, most)


def test_the_estimate_is_the_size_of_a_checkpoint(finished, shards):
    """But for the names in its files and Adam's counters, which weigh much only in networks as small as these."""
    config = small(shards.folder, optim__ema=0.9)
    loaded = checkpoint.load(finished / f"checkpoints/step-{STEPS:08d}")
    numbers = sum(
        t.nbytes for file in loaded.tensors.values() for n, t in file.items() if not n.endswith(("/step", "loss_scale"))
    )
    networks = start(config)[1]
    assert estimate_checkpoint_bytes(config) == networks.checkpoint_bytes == numbers
    smaller = checkpoint_bytes(networks.generator, networks.discriminators, averages=False)
    assert numbers - smaller == sum(t.nbytes for t in networks.generator.state_dict().values())


def test_too_little_room_is_said_or_refused(tmp_path, capsys):
    log_to_stderr()
    free, folder = files.free_bytes(tmp_path), tmp_path / "not/yet"
    for most in (1, 3):
        DiskNeed(folder, free // 2, 1, most, f"{most} of them").check()
    DiskNeed(folder, 1 << 80, 0, 0, "nothing").check()
    with pytest.raises(
        files.DiskFull, match=rf"^disk: 2 of them in {folder}, .* in all; free: .*; make room"
    ) as refused:
        DiskNeed(folder, free, 2, 2, "2 of them").check()
    said, short = [line for line in capsys.readouterr().err.splitlines() if "disk: " in line]
    assert said.startswith(f"disk: 1 of them in {folder}, ") and "make room" not in said
    assert short.startswith("warning: disk: 3 of them") and short.endswith("; make room, or lower checkpoint.keep")
    assert refused.value.exit_code == 3 and not folder.exists()
