import json
from dataclasses import replace

import numpy as np
import pytest

from collagan_dist.config.load import load_config
from collagan_dist.errors import CheckpointError
from collagan_dist.reproduce import run_status
from collagan_dist.reproduce.plan import PlannedRun
from tests.reproduce.evaluated import MANIFEST, STEPS, run_of, write_points, write_quality


def test_a_run_of_another_length_is_not_continued(undisturbed):
    config = load_config(str(undisturbed / "runs/M_d/config.yaml"))
    manifest = json.loads((undisturbed / "runs/M_d/data.json").read_text())["manifest"]
    run = PlannedRun("M_d", "M_d", config, undisturbed, 3)
    run_status.check_same_training(run, manifest)
    assert run_status.steps_done(run) == 3 and run_status.is_trained(run)
    for change in ({"steps": 300}, {"adv_from": 100}):
        other = config.model_copy(update={"schedule": config.schedule.model_copy(update=change)})
        run = PlannedRun("M_d", "M_d", other, undisturbed, other.schedule.steps or 0)
        with pytest.raises(CheckpointError, match=rf"schedule.{next(iter(change))}: \d+ -> \d00(.|\n)*another --out"):
            run_status.check_same_training(run, manifest)
    # A share that is the same step is the same training: begun by a preset with a step, continued by one with a share.
    same = config.model_copy(update={"schedule": config.schedule.model_copy(update={"adv_from": 0.4})})
    assert (config.schedule.adv_from, config.schedule.steps) == (1, 3)
    run_status.check_same_training(PlannedRun("M_d", "M_d", same, undisturbed, 3), manifest)


def test_a_damaged_checkpoint_says_nothing_about_the_training(undisturbed, tmp_path):
    """Nor does a folder without any: `collagan train` finds out what is left."""
    run = PlannedRun("M_d", "M_d", load_config(str(undisturbed / "runs/M_d/config.yaml")), tmp_path, 3)
    run_status.check_same_training(run, "another manifest")
    folder = run.folder / "checkpoints/step-00000003"
    folder.mkdir(parents=True)
    assert run_status.steps_done(run) == 0  # not committed
    (folder / "manifest.json").write_text("{}")
    (folder / "state.json").write_text("{")
    run_status.check_same_training(run, "another manifest")


def test_evaluations_that_are_missing(tmp_path):
    """Of both kinds of blending where both are needed; one of another step, data set or setting does not count."""
    run = replace(run_of(tmp_path, "M_isd"), holes={"block": False, "O1": True})
    assert run_status.not_evaluated(run, MANIFEST) == {False: ["block"], True: ["O1"]}
    write_points(run, np.ones((4, 5)))
    write_quality(run, "O1", np.ones(4), np.ones(4))
    assert run_status.not_evaluated(run, MANIFEST) == {}
    assert run_status.not_evaluated(run, "another") == {False: ["block"], True: ["O1"]}
    longer = replace(run, steps=STEPS + 1)
    assert run_status.not_evaluated(longer, MANIFEST) and run_status.evaluated_earlier_step(longer, MANIFEST)
    assert not run_status.evaluated_earlier_step(run, MANIFEST)
    argmax = replace(run, config=run_of(tmp_path, "M_isd", evaluate={"readout": "argmax"}).config)
    assert run_status.not_evaluated(argmax, MANIFEST)
    run.evaluation("O1", blended=True).unlink()
    assert run_status.not_evaluated(run, MANIFEST) == {True: ["O1"]}
    run.evaluation("block", blended=False).write_text("[]")
    assert run_status.not_evaluated(run, MANIFEST) == {False: ["block"], True: ["O1"]}


def test_settings_that_changed_since_the_training_are_passed_on(undisturbed):
    config = load_config(str(undisturbed / "runs/M_d/config.yaml"), sets=["evaluate.readout=argmax"])
    run = PlannedRun("M_d", "M_d", config, undisturbed, 3)
    assert run_status.changed_evaluation_settings(run) == ['evaluate.readout="argmax"']
