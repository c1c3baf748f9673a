from pathlib import Path

import pytest
import torch

from collagan_dist.data.shards.manifest import Manifest
from collagan_dist.distributed.stragglers import Straggler, StragglerDetector
from collagan_dist.errors import ClusterError
from collagan_dist.training.logger import TrainingLogger
from tests.runs.run_folders import lines
from tests.training.one_rank import setup


def journal(shards: Manifest, run: Path) -> TrainingLogger:
    lambdas = {"loss/inpainting/rec": 100.0, "loss/inpainting/adv": 0.8, "loss/landmarks/rec": 200.0}
    return TrainingLogger(setup(shards), run, 0, 1000, lambdas)


def told(log: TrainingLogger, step: int, **values: float) -> None:
    named = {name.replace("__", "/"): torch.tensor(value) for name, value in {"loss__total": 1.0, **values}.items()}
    log.add(named)
    log.train_line(step, 1e-3, 0.0)


def test_a_discriminator_that_has_won_is_named_once_a_spell(shards, tmp_path, capsys):
    log = journal(shards, tmp_path)
    accuracies = [0.995] * 4 + [0.98] + [0.999] * 7 + [0.6] + [1.0] * 5
    for step, accuracy in enumerate(accuracies, 1):
        told(log, step, accuracy__inpainting=accuracy, accuracy__landmarks=0.7)
    log.close()
    events = lines(tmp_path, "event")
    assert [(e["step"], e["event"], e["task"]) for e in events] == [
        (10, "discriminator_won", "inpainting"), (18, "discriminator_won", "inpainting")
    ]  # fmt: skip
    warned = capsys.readouterr().err
    assert warned.count("the discriminator of inpainting") == 2 and "adv_from" in warned


def test_a_straggler_ends_all_ranks_where_that_is_wanted(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(StragglerDetector, "check", lambda _: [Straggler(1, "n1", 0.5, 0.1)])
    log = journal(shards, tmp_path)
    told(log, 1)
    log.close()
    log = TrainingLogger(setup(shards, runtime__fail_on_straggler=True), tmp_path, 0, 1000, {})
    with pytest.raises(ClusterError, match=r"step 1: rank 1 on n1 is a straggler.*fail_on_straggler") as error:
        told(log, 1)
    assert error.value.raised_on_all_ranks


def test_lines_have_raw_and_weighted_losses(shards, tmp_path):
    log = journal(shards, tmp_path)
    told(log, 1, loss__inpainting__rec=0.25, loss__inpainting__adv=2.0, loss__landmarks__rec=0.5)
    log.close()
    (line,) = lines(tmp_path, "train")
    assert line["loss/inpainting/rec"] == 0.25 and line["weighted/inpainting/rec"] == 25.0
    assert line["weighted/inpainting/adv"] == pytest.approx(1.6) and line["weighted/landmarks/rec"] == 100.0
    assert "weighted/landmarks/adv" not in line and "weighted/segmentation/rec" not in line


def test_losses_that_begin_within_a_line_are_means_over_their_own_steps(shards, tmp_path):
    """The adversarial losses begin at schedule.adv_from, wherever a line's steps begin."""
    log = journal(shards, tmp_path)
    log.add({"loss/total": torch.tensor(1.0)})
    log.add({"loss/total": torch.tensor(3.0), "loss/inpainting/disc": torch.tensor(0.5)})
    log.train_line(2, 1e-3, 0.0)
    log.close()
    (line,) = lines(tmp_path, "train")
    assert line["loss/total"] == 2.0 and line["loss/inpainting/disc"] == 0.5
