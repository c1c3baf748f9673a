import json
import shutil

from collagan_dist.report.trial_data import add_curves, choice_text, read_trials
from tests.report.simulated_sweep import REC


def test_curves_are_the_evaluations_of_the_run_folders(asha, asha_data):
    for read, trial in zip(asha_data.trials, asha.trials, strict=True):
        wanted = [(samples, scores["psnr_hole"]) for samples, scores in sorted(trial.results.items())]
        assert (read.curves or {}).get("psnr_hole", ()) == tuple(wanted)
        assert [read.at("psnr_hole", samples) for samples, _ in wanted] == [value for _, value in wanted]
        assert read.at("psnr_hole", 1) is None


def test_empty_cells_may_be_written_as_words(tmp_path):
    (tmp_path / "trials.csv").write_text(f"trial,status,steps,{REC},psnr,samples\n0,done,None,NaN,null,none\n1,done,,50,18.5,\n")  # fmt: skip
    (first, second), columns = read_trials(tmp_path / "trials.csv", {REC: {"kind": "loguniform"}})
    assert (first.steps, first.samples, first.values[REC], first.scores) == (None, None, None, {})
    assert (second.values[REC], second.scores, second.role, columns) == (50.0, {"psnr": 18.5}, "search", ("psnr",))


def test_a_choice_reads_the_same_from_json_and_csv():
    for value in (True, False, None, 0.5, 16, "own", "1e-3", [1, 2], ["a", "b"], "no, thanks"):
        for written in (str(value), json.dumps(value)):
            assert choice_text(choice_text(written)) == choice_text(written)
        assert choice_text(json.dumps(value)) == choice_text(value)
    assert choice_text("True") == choice_text(True) == "true" and choice_text("16.0") == choice_text(16) == "16"


def test_damaged_run_folders_become_notes(asha, asha_data, tmp_path):
    for number in range(5):
        shutil.copytree(asha.folder(number), tmp_path / asha.folder(number).relative_to(asha.out))
    (tmp_path / "trials/t001/metrics.jsonl").write_text('{"kind": "ev\n{"kind": "event"}\n')
    (tmp_path / "trials/t002/config.yaml").unlink()
    (tmp_path / "trials/t003/config.yaml").write_text("schedule: {steps: 3}\n")
    trials, notes = add_curves(tmp_path, asha_data.trials[:5], ["psnr_hole"])
    assert [note.split(":")[0] for note in notes] == [f"The curve of trial {n} is left out" for n in (1, 2, 3)]
    assert [bool(trial.curves) for trial in trials] == [True, False, False, False, True]
