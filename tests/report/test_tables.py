import json

import pytest

from collagan_dist.report.tables import best_cells
from collagan_dist.units import format_bytes


def test_every_number_of_metrics_json_is_in_a_table(page, run):
    metrics = json.loads((run / "metrics.json").read_text())
    baselines = metrics["baselines"]
    for key, label, digits in (
        ("psnr", "PSNR (dB)", 2), ("psnr_hole", "PSNR, in the hole (dB)", 2),
        ("ssim", "SSIM", 3), ("ssim_hole", "SSIM, in the hole", 3),
    ):  # fmt: skip
        values = [metrics[key], baselines["mean_colour"][key], baselines["biharmonic"][key]]
        shown = page.row(label)[1:]
        assert [cell.split()[0] for cell in shown] == [f"{value:.{digits}f}" for value in values]
        # Baselines have no standard error, so that of the run alone decides whether one leads.
        errors = [metrics["se"][key], 0, 0]
        leads = [
            all((value - other) > (error**2 + rival**2) ** 0.5 for other, rival in zip(values, errors, strict=True) if other != value)
            for value, error in zip(values, errors, strict=True)
        ]  # fmt: skip
        assert ["★" in cell for cell in shown] == leads
        assert f"± {metrics['se'][key]:.{digits}f}" in shown[0]
    for variants, digits in ((("dice", "dice_hole", "dice_per_image"), 3),
                             (("landmark_error", "landmark_error_hole", "landmark_error_argmax"), 2)):  # fmt: skip
        for part in metrics[variants[0]]:
            label = "Average" if part == "mean" else part.replace("_", " ").capitalize()
            rows = [sorted(cell.split()[0] for cell in row[1:4]) for row in page.rows if row[0] == label]
            wanted = [f"{metrics[name][part]:.{digits}f}" if part in metrics[name] else "–" for name in variants]
            assert sorted(wanted) in rows, (part, wanted, rows)


@pytest.mark.parametrize(
    ("key", "values", "errors", "best"),
    [
        ("psnr", [20.0, 21.0], [0.6, 0.79], 1),  # 1.0 apart, 0.992 is the error of the difference
        ("psnr", [20.0, 21.0], [0.6, 0.81], None),
        ("landmark_error", [2.0, 3.0, None], [0.5, None, None], 0),
        ("landmark_error", [2.0, 2.4, 9.0], [0.5, None, None], None),
        ("dice/face", [0.5, 0.5], [None, None], None),
        ("psnr", [20.0, None], [0.1, None], None),
    ],
)
def test_the_best_is_marked_where_it_leads_by_more_than_one_standard_error(key, values, errors, best):
    marked = [index for index, cell in enumerate(best_cells(key, values, errors)) if cell.best]
    assert marked == ([] if best is None else [best])


def test_all_evaluations_have_a_row(page, run):
    for file, name in (("test-O1", "split test, hole O1"), ("test-O1-blended", "split test, hole O1, blended (poisson)")):  # fmt: skip
        metrics = json.loads((run / f"evaluation/{file}.json").read_text())
        assert page.row(name)[1].split()[0] == f"{metrics['psnr']:.2f}"
        assert f"S{name[1:]}: all numbers" in page.text


def test_checkpoints(page, run):
    size = sum(file.stat().st_size for file in (run / "checkpoints/step-00000012").iterdir())
    assert page.row("12", 3) == ["12", format_bytes(size), "yes"]


def test_events_and_damaged_lines(page, comparison_page):
    assert "start × 1, resume × 1" in page.text and page.row("8", 3)[1] == "resume"
    assert comparison_page.row("11", 3)[1:] == ["rollback", "reason: not finite"]
    for note in (
        "is cut short",
        "1 number(s) of metrics.jsonl are not finite",
        "1 line(s) of metrics.jsonl are of an unknown",
    ):
        assert note in comparison_page.text
    # The resume and the rollback are dotted verticals.
    assert comparison_page.chart("Total loss", -1).svg.count('stroke-dasharray="1,2"') == 2
    assert "nan at step" not in comparison_page.source
