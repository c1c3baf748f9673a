import json
import shutil
from dataclasses import replace

import pytest

from collagan_dist.errors import DataError
from collagan_dist.report.page import write_report
from collagan_dist.report.sweep_charts import importance_charts
from collagan_dist.report.sweep_data import Metric, is_sweep, read_sweep, short_labels
from tests.report.simulated_sweep import ADV, BATCH, CHOICE, LR, REC, STEPS


def test_what_the_sweep_wrote_is_read(asha, asha_data, run):
    found, plan = asha_data, asha.plan
    assert is_sweep(asha.out) and not is_sweep(run)
    assert len(found.searched) == found.planned_trials == 40 and found.rungs == plan.rungs
    assert found.rungs[-1] == STEPS * BATCH and found.scheduler == "asha" and found.status == "done"
    keys = {key.name: key for key in found.keys}
    assert tuple(keys) == plan.space.keys
    assert (keys[REC].kind, keys[REC].low, keys[REC].high, keys[REC].paper) == ("loguniform", 30, 300, 100)
    assert keys[CHOICE].choices == ("per_task", "shared") and keys[ADV].kind == "simplex" and keys[LR].log
    for read, trial in zip(found.trials, asha.trials, strict=True):
        assert (read.number, read.role, read.seed, read.restarts) == (trial.number, trial.role, trial.seed, trial.restarts)  # fmt: skip
        assert read.values == pytest.approx(trial.values) if CHOICE not in read.values else read.values[REC] == trial.values[REC]  # fmt: skip
        assert read.scores == (pytest.approx(trial.results[trial.reached]) if trial.results else {})
        assert found.is_full_length(read) == (trial.reached == STEPS * BATCH)
        assert found.folder(read) == asha.folder(trial.number)
    assert found.paper_trial.number == 0


def test_labels_are_short_and_unique():
    labels = {
        "loss.weights.inpainting.adv": "inpainting.adv", "loss.weights.inpainting.rec": "inpainting.rec",
        "loss.weights.segmentation.adv": "segmentation.adv", "optim.generator.lr": "generator.lr",
        "optim.discriminators.lr": "discriminators.lr", "model.discriminators": "discriminators",
        "schedule.batch": "batch", "seed": "seed", "a.b.c.x": "a.b.c.x", "d.b.c.x": "d.b.c.x", "c.x": "c.x",
    }  # fmt: skip
    assert short_labels(list(labels)) == labels and short_labels([REC]) == {REC: "inpainting.rec"}


DAMAGED = {
    "cut short": ("sweep.json", '{"version": 1, "met', "not readable as JSON"),
    "a list": ("sweep.json", "[]", "expected a JSON object"),
    "newer": ("sweep.json", '{"version": 2}', "is of version 2"),
    "without metrics": ("sweep.json", '{"version": 1, "metrics": [], "keys": {}}', "metrics: needs at least 1 item, has 0"),
    "unknown mode": ("sweep.json", '{"version": 1, "metrics": [{"name": "psnr", "mode": "up"}], "keys": {}}', "'up'"),
    "without keys": ("sweep.json", '{"version": 1, "metrics": [{"name": "psnr", "mode": "max"}]}', "keys is missing"),
    "no header": ("trials.csv", "0,done,640\n", 'a column "trial"'),
    "a short row": ("trials.csv", "trial,status\n0,done\n1\n", "row 3: 1 cells under 2 names"),
    "a word": ("trials.csv", "trial,psnr_hole\n0,good\n", "row 2: expected a number under \"psnr_hole\", found 'good'"),
    "no number": ("trials.csv", "trial,status\nx,done\n", "under \"trial\", found 'x'"),
    "twice": ("trials.csv", "trial,status\n0,done\n0,done\n", "trial 0 is listed twice"),
    "bytes": ("trials.csv", "\udcff", "not readable as CSV"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named(asha, tmp_path, name, content, words):
    for file in ("sweep.json", "trials.csv"):
        shutil.copy(asha.out / file, tmp_path)
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        write_report([tmp_path])
    assert str(tmp_path / name) in str(caught.value) and words in str(caught.value)
    assert "collagan" in str(caught.value) and not (tmp_path / "report.html").exists()


def test_numbers_that_cannot_be_drawn_are_left_out_and_said(asha, tmp_path):
    found = json.loads((asha.out / "sweep.json").read_text())
    found["confirmed"]["difference"], found["seconds"], found["rungs"][0] = float("nan"), 1e300, 10**400
    found["importance"] = {"psnr_hole": {REC: None, LR: 0.25}, "psnr": {REC: None}}
    shutil.copy(asha.out / "trials.csv", tmp_path)
    (tmp_path / "sweep.json").write_text(json.dumps({**found, "rungs": found["rungs"][::-1]}))
    sweep = read_sweep(tmp_path)
    assert sweep.importance == {"psnr_hole": {LR: 0.25}, "psnr": {}}
    assert len(importance_charts(replace(sweep, metrics=(sweep.main, Metric("psnr", "max"))))) == 1
    assert (sweep.confirmed, sweep.seconds, sweep.rungs) == (None, None, tuple(found["rungs"][1:]))
    assert sweep.notes[0].startswith("3 number(s) of sweep.json are not finite")


def test_a_sweep_that_is_only_begun(asha, tmp_path):
    found = json.loads((asha.out / "sweep.json").read_text())
    bare = {key: found[key] if key in ("version", "metrics", "keys") else None for key in found}
    (tmp_path / "sweep.json").write_text(json.dumps(bare))
    assert read_sweep(tmp_path).trials == ()
    for content in ("", "trial,status\n"):
        (tmp_path / "trials.csv").write_text(content)
        assert read_sweep(tmp_path).trials == ()
