import json

from collagan_dist.report.run_data import read_run
from collagan_dist.report.summary import (
    comparison_headline,
    comparison_table,
    differences_table,
    headline,
    summary,
    title,
)
from collagan_dist.report.tables import metric_tables
from tests.report.conftest import ODD_NAME


def test_title_and_progress(page, run, altered):
    data, world = (json.loads((run / f"{name}.json").read_text()) for name in ("data", "world"))
    preset, changed = read_run(run).preset
    assert title(read_run(run)) == f"{preset} · M*_isd · {data['dataset']} · {world['started'][:10]}" in page.text
    assert (
        f"inpainting, segmentation, landmarks · 12 of 12 steps · {len(changed)} settings not the preset's" in page.text
    )
    tasks = ["inpainting", "segmentation", "depth_map"]
    longer = read_run(altered(config={"schedule.steps": 2000, "model.tasks": tasks}))
    # Settings of another version are compared with no preset.
    assert title(longer).startswith("M*_is+depth_map · ")
    assert summary(longer) == "inpainting, segmentation, depth map · 12 of 2,000 steps, not finished"


def test_headline_compares_with_the_best_baseline(altered):
    metrics = json.loads((altered("plain") / "metrics.json").read_text())
    rival, error = metrics["baselines"]["biharmonic"]["psnr_hole"], metrics["se"]["psnr_hole"]
    assert rival > metrics["baselines"]["mean_colour"]["psnr_hole"] and error > 0.01
    for name, psnr, words in (
        ("better", rival + 2 * error, f"{2 * error:.2f} dB better than"),
        ("worse", rival - 2 * error, f"{2 * error:.2f} dB worse than"),
        ("equal", rival + 0.9 * error, "as good as"),
    ):
        against = f"biharmonic filling inside the hole ({psnr:.2f} ± {error:.2f} against {rival:.2f} dB). Dice is "
        assert headline(read_run(altered(name, psnr_hole=psnr))).startswith(f"Completed faces are {words} {against}")


def test_baselines_of_the_first_samples_are_compared_on_these(altered):
    """The run is better on all samples than a baseline on the first, and worse on the same."""
    metrics = json.loads((altered("plain") / "metrics.json").read_text())
    rival, error = metrics["baselines"]["biharmonic"]["psnr_hole"], metrics["se"]["psnr_hole"]
    part = {"samples": 100, "model": {"psnr_hole": rival - 3 * error}}
    found = read_run(altered("part", psnr_hole=rival + 5, samples=400, baselines_subset=part))
    numbers = f"({rival - 3 * error:.2f} ± {2 * error:.2f} against {rival:.2f} dB, first 100 samples)"
    worse = f"Completed faces are {3 * error:.2f} dB worse than biharmonic filling inside the hole {numbers}."
    assert headline(found).startswith(worse)
    table = metric_tables(found.evaluation)[0]
    own, *rivals = dict(table.rows)["PSNR, in the hole (dB)"]
    assert own.text == f"{rival + 5:.2f}" and own.extra == f"± {error:.2f}" and not own.best
    assert [name for name, cell in zip(table.columns[2:], rivals, strict=True) if cell.best] == [
        "Biharmonic (baseline)"
    ]


def test_a_comparison_says_what_was_evaluated_on_what(run, altered):
    other = read_run(altered("other", psnr_hole=40.0))
    bare = altered("none")
    for file in [bare / "metrics.json", *(bare / "evaluation").glob("*.json")]:
        file.unlink()
    rows = [line for line in (bare / "metrics.jsonl").read_text().splitlines() if '"kind": "eval"' not in line]
    (bare / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    first, unevaluated, elsewhere = read_run(run), read_run(bare), read_run(altered("elsewhere", hole="O1"))
    subject = f"split test, hole block, {first.evaluation.samples} samples."
    note = comparison_table([first, other], ["a", "b"]).note
    assert f"All were evaluated on {subject}" in note and "Not evaluated" not in note
    note = comparison_table([first, unevaluated], ["a", "b"]).note
    assert f"Those evaluated were on {subject} Not evaluated: b." in note
    note = comparison_table([first, elsewhere], ["a", "b"]).note
    assert "compare with care" in note and "evaluated on split" not in note and "★" not in note
    better = read_run(altered("better", hole="O1", psnr_hole=40.0))
    for runs, marks in (([first, other], [False, True]), ([first, better], [False, False])):
        table = comparison_table(runs, ["a", "b"])
        at = table.columns.index("PSNR, in the hole (dB)") - 1
        assert [cells[at].best for _, cells in table.rows] == marks
    lead = 40 - first.evaluation.values["psnr_hole"]
    assert comparison_headline([first, other], ["a", "b"]) == f"b completes best: by {lead:.2f} dB inside the hole."
    assert comparison_headline([first, first], ["a", "b"]).startswith("No run completes better")
    assert (
        comparison_headline([first, elsewhere], ["a", "b"])
        == comparison_headline([first, unevaluated], ["a", "b"])
        == ""
    )


def test_cards(page, run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert "Steps 12 of 12 planned" in page.text and "median while training" in page.text
    assert f"PSNR, in the hole {metrics['psnr_hole']:.2f} dB ± {metrics['se']['psnr_hole']:.2f}" in page.text
    assert f"Landmark error, average {metrics['landmark_error']['mean']:.2f} px" in page.text


def test_comparison_shows_numbers_and_lists_settings_that_differ(comparison_page, run):
    page = comparison_page
    header = next(row for row in page.rows if row[:1] == ["Run"])
    cells = {name: dict(zip(header, page.row(name, len(header)), strict=True)) for name in ("demo", ODD_NAME)}
    assert cells[ODD_NAME]["PSNR, in the hole (dB)"].startswith("40.00 ±")
    assert not any("★" in cell for row in cells.values() for cell in row.values())  # their holes differ
    assert page.row("optim.generator.lr")[1:] == ["0.0002", "0.0004"]
    assert not differences_table([read_run(run)] * 2, ["a", "b"]).rows
