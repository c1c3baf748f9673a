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


def test_long_curves_are_thinned_out_but_not_at_rungs(asha_data, tmp_path):
    (tmp_path / "trials/t000").mkdir(parents=True)
    (tmp_path / "trials/t000/trial.json").write_text('{"batch": 4}')
    rows = [{"kind": "eval", "step": step, "psnr_hole": float(step)} for step in range(1, 280)]
    (tmp_path / "trials/t000/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (trial,), notes = add_curves(tmp_path, asha_data.trials[:1], ["psnr_hole"], kept=(4 * 17, 4 * 201))
    curve = (trial.curves or {})["psnr_hole"]
    assert len(curve) <= 52 and curve[0] == (4, 1.0) and curve[-1] == (4 * 279, 279.0) and not notes
    assert trial.at("psnr_hole", 4 * 17) == 17 and trial.at("psnr_hole", 4 * 201) == 201


def test_notes_on_many_trials_are_counted(asha_data, tmp_path):
    for number in range(30):
        (tmp_path / f"trials/t{number:03d}").mkdir(parents=True)
        (tmp_path / f"trials/t{number:03d}/metrics.jsonl").write_text("damaged\n" * 2)
    _, notes = add_curves(tmp_path, asha_data.trials[:30], ["psnr_hole"])
    assert len(notes) == 21 and notes[-1] == "10 more notes on curves of trials are not shown."


def test_numbers_that_cannot_be_drawn_are_left_out_and_said(tmp_path):
    (tmp_path / "trials.csv").write_text(f"trial,{REC},psnr\n0,1e999,1e101\n1,{'9' * 400},nan\n2,5,-inf\n")
    trials, _ = read_trials(tmp_path / "trials.csv", {REC: {"kind": "loguniform"}})
    assert [trial.scores for trial in trials] == [{}, {}, {}] and [trial.values[REC] for trial in trials] == [
        None,
        None,
        5,
    ]
    assert sum(trial.undrawable for trial in trials) == 4


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
    for number, settings in ((2, "schedule: ["), (3, "schedule: {steps: 3}\n")):
        (tmp_path / f"trials/t{number:03d}/trial.json").unlink()
        (tmp_path / f"trials/t{number:03d}/config.yaml").write_text(settings)
    trials, notes = add_curves(tmp_path, asha_data.trials[:5], ["psnr_hole"])
    wanted = ["The curve of trial 1", *(f"The curve of trial {n} is left out" for n in (2, 3))]
    assert [note.split(":")[0] for note in notes] == wanted and "1 line(s) of metrics.jsonl are damaged" in notes[0]
    assert [bool(trial.curves) for trial in trials] == [True, False, False, False, True]
