from dataclasses import replace

from collagan_dist.report.sweep_tables import best_table, settings_table, trials_table
from tests.report.simulated_sweep import ADV, CHOICE, LR, REC

METRICS = (("PSNR, in the hole (dB)", "psnr_hole", 2, 1), ("Landmark error (px)", "landmark_error", 2, -1), ("Dice", "dice", 3, 1))  # fmt: skip


def test_the_tables_have_every_trial(asha_page, asha_data):
    table = asha_page.table("Trial", "PSNR, in the hole (dB)", "Samples")
    metrics = asha_page.table("Trial", "Steps")
    runs = [trial for trial in asha_data.searched if trial.status == "done"]
    best = {name: max(runs, key=lambda one: sign * one.scores[name]).number for _, name, _, sign in METRICS}
    for trial in asha_data.trials:
        cells, others = table[str(trial.number)], metrics[str(trial.number)]
        assert cells["Status"].split(",")[0] == {"stopped": "stopped early"}.get(trial.status, trial.status)
        assert cells["Samples"] == f"{trial.samples:,}" and cells["discriminators"] == trial.values[CHOICE]
        assert cells["inpainting.rec"] == f"{trial.values[REC]:.4g}"
        for column, name, digits, _ in METRICS:
            shown = f"{trial.scores[name]:.{digits}f}" if trial.scores else "–"
            assert others[column] == shown + (" ★" if trial.number == best[name] else "")
        assert cells["PSNR, in the hole (dB)"] == others["PSNR, in the hole (dB)"]
    for number in ("5", "11"):
        assert asha_page.row(number, 4) == [number, "0", "2", "the loss is NaN at step 6, after 3 rollbacks"]
    roles = [table[str(number)]["Status"] for number in (0, 1, asha_data.best, 40)]
    assert roles == ["stopped early, paper", "stopped early", "done, best", "done, confirm, seed 1"]


def test_trials_are_sorted_by_length_and_then_by_the_deciding_metric(asha_page, asha_data):
    numbers = [int(name) for name, _ in trials_table(asha_data).rows]
    trials = [asha_data.trials[number] for number in numbers]
    keys = [(one.samples, one.scores["psnr_hole"]) for one in trials if one.scores]
    assert keys == sorted(keys, reverse=True) and len(keys) == 42 and numbers[-2:] == [5, 11]


def test_the_best_is_beside_the_paper_at_lengths_that_are_known(nsga2_page, nsga2_data, asha_data):
    best = nsga2_data.best
    assert ["", f"Trial {best} after 216 samples", "The paper's λ after 216 samples", "Searched"] in nsga2_page.rows
    # Without folders of trials nothing is known of the best one at the paper's length.
    bare = replace(asha_data, trials=tuple(replace(one, curves=None) for one in asha_data.trials))
    heads = best_table(bare).columns
    assert (
        heads[1:3] == ("The paper's λ after 24 samples", f"Trial {asha_data.best} after 216 samples")
        and len(heads) == 4
    )


def test_the_best_trial_and_its_options(asha_page, asha_data):
    best, paper = asha_data.best_trial, asha_data.paper_trial
    rec = f"{best.values[REC]:.4g}"
    assert asha_page.row("inpainting.rec") == ["inpainting.rec", rec, "100", rec, "30 to 300, logarithmic"]
    heads = [
        f"Trial {best.number} after 24 samples",
        "The paper's λ after 24 samples",
        f"Trial {best.number} after 216 samples",
    ]
    assert ["", *heads, "Searched"] in asha_page.rows
    for column, name, digits, _ in METRICS:
        values = best.at(name, 24), paper.scores[name], best.scores[name]
        assert asha_page.row(column)[1:4] == [f"{value:.{digits}f}" for value in values]
    assert f"--set {REC}={best.values[REC]:.6g}" in asha_page.text
    assert f"--set {CHOICE}={best.values[CHOICE]}" in asha_page.text


def test_settings_and_space(asha_page, nsga2_page, asha_data):
    assert asha_page.row("rungs, in samples")[1] == "24 · 72 · 216" and asha_page.row("seed")[1] == "0"
    assert asha_page.row("trials planned")[1] == "40" and asha_page.row("scheduler")[1].startswith("ASHA")
    assert nsga2_page.row("search")[1].startswith("NSGA-II") and nsga2_page.row("scheduler")[1].startswith("none")
    metrics = "psnr_hole (larger is better), dice (larger is better), landmark_error (smaller is better)"
    assert nsga2_page.row("metrics")[1] == metrics
    pbt = {key: cells[0].text for key, cells in settings_table(replace(asha_data, scheduler="pbt")).rows}
    assert pbt["generations, in samples"] == "24 · 72 · 216" and "copy the best" in pbt["scheduler"]
    for key, paper in ((REC, "100"), (ADV, "0.8"), (LR, "0.0002"), (CHOICE, "per_task")):
        assert asha_page.row(key)[2] == paper
