import json

from collagan_dist.audit.record import RunRecord, Stretch, config_differences


def test_stretches_lie_between_kept_checkpoints(trained):
    assert RunRecord(trained).stretches() == [Stretch(0, 3), Stretch(3, 6), Stretch(6, 9)]


def test_what_a_later_start_gave_up_is_not_read(run):
    """A start at 6 was killed at 8, the next one began at 5: its lines and starts count."""
    rows = [{"kind": "event", "event": "start", "step": 0, "time": ""}]
    rows += [{"kind": "train", "step": step, "loss/total": 1.0} for step in (1, 4, 6)]
    rows += [{"kind": "event", "event": "resume", "step": 6}, {"kind": "train", "step": 7, "loss/total": 1.0}]
    rows += [{"kind": "event", "event": "rollback", "step": 5}]
    rows += [{"kind": "train", "step": step, "loss/total": 2.0} for step in (6, 9, 12)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = RunRecord(run).log(Stretch(3, 9))
    assert [(row["step"], row["loss/total"]) for row in found.rows] == [(4, 1.0), (6, 2.0), (9, 2.0)]
    assert [step for step, _ in found.starts] == [0, 5] and found.begins == (1, 0, 5)
    assert [step for step, _ in found.inside(Stretch(3, 9))] == [5] and found.inside(Stretch(5, 9)) == []


def test_keys_that_move_results():
    first = {
        "seed": 0,
        "data": {"shards": "a", "window": 1},
        "runtime": {"timeout": 1, "precision": "fp32"},
        "log": {"every": 1},
    }
    last = {
        "seed": 1,
        "data": {"shards": "b", "window": 2},
        "runtime": {"timeout": 2, "precision": "bf16"},
        "log": {"every": 2},
    }
    found = list(config_differences(first, last))
    assert found == ["data.window: 1 -> 2", "runtime.precision: fp32 -> bf16", "seed: 0 -> 1"]


def test_steps_at_which_a_trial_took_networks_of_another(run):
    """A batch of 4: 10 samples are reached at step 3."""
    assert RunRecord(run).taken_over() == {}
    trial = {
        "number": 1,
        "batch": 4,
        "lineage": [{"at": 10, "from": 0, "values": {}}, {"at": 36, "from": 2, "values": {}}],
    }
    (run / "trial.json").write_text(json.dumps(trial))
    assert RunRecord(run).taken_over() == {3: 0, 9: 2}
