import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from collagan_dist.report.sweep_data import MAX_SHOWN
from tests.report.browser import open_tab
from tests.report.page_reader import Page, read_report
from tests.report.simulated_sweep import CHOICE, REC, SimulatedSweep


def test_pictures_of_the_best_and_the_paper(asha_page, asha_data):
    assert [picture["alt"].split(" Columns")[0] for picture in asha_page.pictures()] == [
        f"Trial {asha_data.best}, the best. Sample pictures at step 12.",
        "Trial 0, the paper's λ. Sample pictures at step 12.",
    ]
    assert "Repetitions over other seeds are not shown" in asha_page.text
    assert "was stopped early shows its value at that time; its value at full length is not known." in asha_page.text


def test_damaged_trials_become_notes_and_no_name_can_run_code(asha, asha_page, tmp_path):
    path = Path(shutil.copytree(asha.out, tmp_path / "<script>alert(2)<"))
    best = json.loads((path / "sweep.json").read_text())["best"]
    (path / f"trials/t{best:03d}/grids/step-00000012.png").write_bytes(b"none")
    (path / "trials/t000/metrics.jsonl").write_text('{"kind": "ev\n{"kind": "event"}\n')
    (path / "trials/t000/world.json").write_text("{")
    for name in ("sweep.json", "trials.csv"):
        text = (path / name).read_text().replace("per_task", "<script>x</script>").replace("search", "<script>y")
        (path / name).write_text(text)
    page = read_report(path)
    for note in (
        "step-00000012.png cannot be shown",
        "The curve of trial 0: 1 line(s) of metrics.jsonl are damaged",
        "pictures of trial 0 are left",
    ):
        assert note in page.text
    assert not page.pictures()
    assert page.runnable_scripts() == 2 and "<script>x</script>" in page.text


@pytest.mark.parametrize(
    ("segments", "words"),
    [(0, "No trial has started yet."), (1, "Every trial failed; the reasons are below."), (8, "of 16 trials ended")],
)
def test_an_interrupted_sweep(shards, tmp_path, segments, words):
    sweep = SimulatedSweep(tmp_path / "sweep", shards.folder, 16, failing=(0, 3)).run(segments)
    page = read_report(sweep.out)
    assert "interrupted: the same command continues it" in page.text and words in page.text
    assert set(trials_of(page)) == {str(trial.number) for trial in sweep.trials}


def trials_of(page: Page) -> list[str]:
    """The first cells of the table of all metrics of all trials."""
    return list(page.table("Trial", "Steps"))


EMPTY = ("status", "steps", "role", "seed", "samples", "restarts", "reason", "psnr_hole", REC)
STRANGE = (
    {"psnr_hole": "nan", REC: "inf"},
    {REC: "auto", CHOICE: "other", "status": "odd", "role": "odd"},
    {"status": "failed", "psnr_hole": "", "samples": "", "reason": "CUDA out of memory"},
    dict.fromkeys(EMPTY, ""),
)


@pytest.mark.parametrize("cells", [({"psnr_hole": "18.0", REC: "50"},), STRANGE, ()], ids=["alike", "strange", "none"])
def test_strange_cells_have_a_page(nsga2, tmp_path, cells):
    shutil.copy(nsga2.out / "sweep.json", tmp_path)
    with (nsga2.out / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    columns = [name for name in table[0] if cells or name not in (*EMPTY, "dice")]
    with (tmp_path / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row | (cells[at % len(cells)] if cells else {}) for at, row in enumerate(table))
    page = read_report(tmp_path)
    assert "nan" not in page.text.lower().split() and "None" not in page.text
    assert sorted(trials_of(page), key=int) == [row["trial"] for row in table]


def test_a_page_of_thousands_of_trials_is_small(asha, tmp_path):
    """Charts and tables show some of them, with the best, the paper's, failed ones and repetitions; means are of all."""
    for name in ("sweep.json", "trials.csv"):
        shutil.copy(asha.out / name, tmp_path)
    summary = json.loads((tmp_path / "sweep.json").read_text())
    header, *rows = list(csv.reader((tmp_path / "trials.csv").read_text().splitlines()))
    with (tmp_path / "trials.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        for number in range(3000):
            row = dict(zip(header, rows[number % len(rows)], strict=True)) | {"trial": number}
            table.writerow((row | ({} if number < len(rows) else {"role": "search"})).values())
    page = read_report(tmp_path)
    shown = trials_of(page)
    assert len(page.source) < 3_000_000 and len(shown) == MAX_SHOWN and {"0", str(summary["best"])} <= set(shown)
    assert "Charts and tables show 300 of 3000 trials" in page.text
    assert sum("failed" in row for row in page.rows) >= 30 and any("confirm" in row[-1] for row in page.rows)
    specs = [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page.source)]
    numbers = {str(row["trial"]) for spec in specs for row in spec["data"]["values"] if "trial" in row}
    assert numbers <= set(shown) and len(numbers) > 200
    # 4 of the rows are repetitions.
    assert "Trials 2,996" in page.text


def test_what_is_searched_without_effect_is_warned_of(asha, asha_page, tmp_path):
    assert "Warning." not in asha_page.text
    path = Path(shutil.copytree(asha.out, tmp_path / "out"))
    found = json.loads((path / "sweep.json").read_text())
    (path / "sweep.json").write_text(
        json.dumps(found | {"warnings": ["loss.weights.a.adv: searched <b> without effect"]})
    )
    assert "Warning. loss.weights.a.adv: searched <b> without effect" in " ".join(read_report(path).text.split())


FIND = 'const chart = [...document.querySelectorAll(".vega")].find((one) => one.ariaLabel.startsWith("Parallel"));'
SEGMENTS = 'const segments = [...chart.querySelectorAll(".mark-rule.role-mark line")].filter((one) => one.getAttribute("opacity") === "0");'
TIP = "document.querySelector('#vg-tooltip-element.visible table')"


@pytest.mark.browser
def test_a_line_under_the_pointer_tells_its_trial(asha, asha_page, asha_data, tmp_path):
    with open_tab(tmp_path) as tab:
        tab.open(asha.out / "report.html")
        tab.evaluate(f"{{ {FIND} chart.scrollIntoView(); draw(chart); }}")
        tab.wait_for(f"(() => {{ {FIND} {SEGMENTS} return segments.length }})()")
        at = tab.evaluate(f"(() => {{ {FIND} {SEGMENTS} return segments.at(-1).getBoundingClientRect().toJSON() }})()")
        tab.move_pointer(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        tab.wait_for(TIP)
        tip = tab.evaluate(f"{TIP}.outerHTML")
    texts = re.findall(r'<td class="\w+">([^<]*)</td>', tip)
    told = dict(zip([one.rstrip(":") for one in texts[::2]], texts[1::2], strict=True))
    best = asha_data.best_trial
    assert told["trial"] == str(best.number) and told["PSNR in the hole"] == f"{best.scores['psnr_hole']:.2f} dB"
    assert told["inpainting.rec"] == f"{best.values[REC]:.4g}" and told["status"] == "done"
