"""The page of a hyperparameter sweep: what it says and draws, against the folder it was made from."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import make_run_folders as make
import make_sweep_folders as sweeps
import numpy as np
import pytest
from make_sweep_folders import KEYS, KIND, LR, PAPER, REC, RUNGS, Trial
from read_page import Page

from collagan_dist.errors import DataError
from collagan_dist.report import sensitivity as sense
from collagan_dist.report import sweep_summary
from collagan_dist.report.page import write_report
from collagan_dist.report.sweep_charts import undominated
from collagan_dist.report.sweep_data import Key, Metric, read_sweep, short_labels
from collagan_dist.report.trial_data import word_of

THREE = [
    {"name": "psnr_hole", "mode": "max"},
    {"name": "dice", "mode": "max"},
    {"name": "landmark_error", "mode": "min"},
]
IMPORTANCE = {"psnr_hole": {REC: 0.52, LR: 0.31, KIND: 0.17}, "dice": {LR: 0.625, REC: 0.375}}


def report(path: Path) -> Page:
    assert write_report([path]) == path / "report.html"
    return Page((path / "report.html").read_text(encoding="utf-8"))


def of_three(rows: list[Trial]) -> list[int]:
    """The numbers of the whole runs that no other beats in all three metrics, found by comparing all pairs."""
    points = {
        t.number: np.array([t.scores["psnr_hole"], t.scores["dice"], -t.scores["landmark_error"]])
        for t in rows
        if t.status == "done"
    }
    return [
        n for n, p in points.items() if not any((other >= p).all() and (other > p).any() for other in points.values())
    ]


@pytest.fixture(scope="module")
def rows() -> list[Trial]:
    return sweeps.trials(40)


@pytest.fixture(scope="module")
def folder(rows: list[Trial], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweeps") / "search"
    sweeps.write(path, rows, metrics=THREE, front=of_three(rows), importance=IMPORTANCE)
    best = json.loads((path / "sweep.json").read_text())["best"]
    for number, seed in ((0, 1), (best, 2)):
        grids = path / "trials" / f"t{number:03d}" / "grids"
        for step in (320, 640):
            make.grid(grids / f"step-{step:08d}.png", seed=seed)
        (grids / "columns.json").write_text(json.dumps(["masked", "completed"]))
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return report(folder)


def best_of(rows: list[Trial], metric: str = "psnr_hole", sign: int = 1) -> Trial:
    return max((t for t in rows if t.status == "done"), key=lambda t: sign * t.scores[metric])


def drawn(page: Page, uid: str) -> dict[int, list[tuple[float, float]]]:
    """The points of each trial's mark or line in the chart `uid`, in its own units, y downwards."""
    found = {}
    for number, body in re.findall(rf'<g id="{uid}-t(\d+)" class="trial">(.*?)\n   ?</g>', page.source, re.DOTALL):
        uses = re.findall(r'<use [^>]*?x="([\d.]+)" y="([\d.]+)"', body)
        path = re.search(r' d="([^"]*)"', body.split("<use")[0])
        lines = re.findall(r"[ML] ([\d.]+) ([\d.]+)", path[1]) if path and not uses else []
        found[int(number)] = [(float(x), float(y)) for x, y in uses or lines]
    return found


def is_affine(found: list[float], true: list[float], tolerance: float = 0.02) -> None:
    """`found` is `true` on some axis: to a straight line, within `tolerance` of a point."""
    slope, offset = np.polyfit(true, found, 1)
    assert np.abs(np.polyval((slope, offset), true) - found).max() < tolerance and abs(slope) > 0


def test_needs_nothing_but_itself(page: Page) -> None:
    links = page.values("src") + page.values("href") + page.values("xlink:href") + page.values("srcset")
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "script" not in {tag for tag, _ in page.tags} and "link" not in {tag for tag, _ in page.tags}
    assert "@import" not in page.source and "http" not in page.source
    ids = page.values("id")
    assert len(ids) > 300 and len(ids) == len(set(ids))
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    targets += [value.removeprefix("url(#").removesuffix(")") for value in page.values("clip-path")]
    assert targets and set(targets) <= set(ids)


def test_every_tag_is_closed(page: Page) -> None:
    """The parser of the tests forgives what a browser would mend; a page should not need it."""
    body = re.sub(r"<!doctype.*?>|<style>.*?</style>", "", page.source, flags=re.DOTALL)
    stack: list[str] = []
    for closing, tag, empty in re.findall(r"<(/?)([a-zA-Z][\w:]*)[^>]*?(/?)>", body):
        if closing:
            assert stack.pop() == tag
        elif not empty and tag not in ("meta", "img", "wbr"):
            stack.append(tag)
    assert not stack


def test_no_colour_but_those_of_the_style_sheet(page: Page) -> None:
    """A colour of matplotlib's own would stay as it is when the page turns dark."""
    body = page.source.split("</style>", 1)[1]
    assert not re.findall(r"(?:fill|stroke|color): ?#\w+", body)
    used, style = set(re.findall(r"var\((--[\w-]+)\)", body)), page.source.split("</style>")[0]
    light, dark = style.split("prefers-color-scheme: dark")
    assert {"--r0", "--r8", "--s0", "--s1", "--ink", "--reference"} <= used
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_headline_and_cards(page: Page, rows: list[Trial]) -> None:
    best, paper = best_of(rows), rows[0]
    value, rival = best.scores["psnr_hole"], paper.scores["psnr_hole"]
    assert value > rival
    assert f"Trial {best.number} is the best of 37 trials by PSNR in the hole ({value:.2f} dB)" in page.text
    assert f"it beats the paper's λ by {value - rival:.2f} dB ({rival:.2f} dB)." in page.text
    assert "partly the luckiest: not confirmed over seeds" in page.text
    assert f"{len(of_three(rows))} trials are Pareto-optimal (PSNR in the hole, Dice, landmark error)" in page.text
    assert "64x64 pixels, trained on 2,400" in page.text and "finished · 40 of 40 trials ended" in page.text
    counts = {status: sum(t.status == status for t in rows) for status in ("done", "stopped", "failed")}
    assert f"{counts['done']} done, {counts['stopped']} stopped early, {counts['failed']} failed" in page.text
    trained = sum(t.samples or 0 for t in rows)
    assert f"{trained:,}" in page.text and f"{trained / (40 * RUNGS[-1]):.0%} of what whole runs" in page.text
    assert "13.5 min" in page.text
    least = best_of(rows, "landmark_error", -1)
    assert f"Best landmark error {least.scores['landmark_error']:.2f} px trial {least.number}" in page.text


def trial(number: int, psnr: float, **changes: Any) -> Trial:
    values = {REC: 50.0 + number, "loss.weights.inpainting.adv": 0.5, LR: 2e-3, KIND: "shared"}
    return Trial(number, values, {"psnr_hole": psnr, "psnr": psnr + 6}, **changes)


def said(path: Path, rows: list[Trial], **changes: Any) -> str:
    return sweep_summary.headline(read_sweep(sweeps.write(path, rows, **changes)))


def test_the_headline_is_honest(tmp_path: Path) -> None:
    paper = trial(0, 18.5, role="paper")
    assert "beats the paper's λ by 0.42 dB (18.50 dB)" in said(tmp_path / "a", [paper, trial(1, 18.92)])
    text = said(tmp_path / "b", [trial(0, 18.5, role="paper"), trial(1, 18.5)], best=1)
    assert "it is no better than the paper's λ (18.50 dB)" in text
    text = said(tmp_path / "c", [paper, trial(1, 18.3)])
    assert text == "The paper's λ are the best of 2 trials by PSNR in the hole: 18.50 dB."
    assert "nothing to hold it against" in said(tmp_path / "d", [trial(1, 18.3)])
    assert "beats the paper's λ by < 0.01 dB" in said(tmp_path / "e", [paper, trial(1, 18.501)])
    # Smaller is better: an error of 2.0 beats one of 2.5.
    other = [trial(0, 18, role="paper"), trial(1, 17)]
    for one, error in zip(other, (2.5, 2.0), strict=True):
        one.scores["landmark_error"] = error
    text = said(tmp_path / "f", other, metrics=[{"name": "landmark_error", "mode": "min"}], best=1)
    assert "by landmark error (2.00 px): it beats the paper's λ by 0.50 px (2.50 px)" in text


def test_a_paper_that_was_stopped_is_compared_where_it_was(tmp_path: Path) -> None:
    rows = [trial(0, 16.0, role="paper", status="stopped", samples=RUNGS[0]), trial(1, 18.9)]
    path = sweeps.write(tmp_path / "a", rows, folders=False)
    text = sweep_summary.headline(read_sweep(path))
    assert "the paper's λ were stopped at 2,304 samples with 16.00 dB." in text and "beats" not in text
    sweeps.run_folder(path / "trials" / "t001", rows[1])
    log = [
        {"kind": "eval", "step": RUNGS[0] // 32, "psnr_hole": 15.5},
        {"kind": "eval", "step": 640, "psnr_hole": 18.9},
    ]
    make.write_log(path / "trials" / "t001" / "metrics.jsonl", log)
    assert "there it is no better than the paper's λ." in sweep_summary.headline(read_sweep(path))
    log[0]["psnr_hole"] = 16.3
    make.write_log(path / "trials" / "t001" / "metrics.jsonl", log)
    assert "there it beats the paper's λ by 0.30 dB." in sweep_summary.headline(read_sweep(path))


@pytest.mark.parametrize(
    ("difference", "p", "words"),
    [
        (0.15, 0.2, "(p = 0.2): not told apart from chance."),
        (0.15, 0.03, "(p = 0.03): better beyond chance."),
        (-0.15, 0.0002, "(p < 0.001): worse beyond chance."),
        (0.15, None, "too few seeds to tell it from chance."),
    ],
)
def test_what_became_of_it_over_seeds(tmp_path: Path, difference: float, p: float | None, words: str) -> None:
    sides = {
        "paper": {"values": [18.63, 18.75, 18.87], "mean": 18.75, "sd": 0.12},
        "best": {"trial": 1, "values": [18.8, 18.9, 19.0], "mean": 18.9, "sd": 0.1},
    }
    found = {"seeds": 3, "metric": "psnr_hole", "difference": difference, "p": p, **sides}
    text = said(tmp_path / "a", [trial(0, 18.5, role="paper"), trial(1, 18.92)], confirmed=found)
    assert "Over 3 seeds each: 18.90 ± 0.10 against 18.75 ± 0.12 dB for the paper's λ" in text
    assert text.endswith(words) and "luckiest" not in text


def test_repetitions_are_in_the_table_and_nowhere_else(tmp_path: Path) -> None:
    rows = [trial(n, 18 + n / 100) for n in range(10)]
    rows += [trial(n, 30.0, role="confirm", seed=n) for n in (10, 11)]
    page = report(sweeps.write(tmp_path / "a", rows))
    assert page.row("10")[1] == "confirm, seed 10" and "and 2 over other seeds" in page.text
    assert set(drawn(page, "m0h")) == set(range(10)) and set(drawn(page, "m0c")) == set(range(10))
    assert "30.00" not in page.best and "Repetitions over other seeds are left out" in page.text


def test_the_table_has_every_trial_and_number(page: Page, rows: list[Trial]) -> None:
    header = next(row for row in page.rows if row[:3] == ["Trial", "Role", "Status"])
    least = {name: best_of(rows, name, -1 if "error" in name else 1).number for name in sweeps.METRICS}
    for one in rows:
        cells = dict(zip(header, page.row(str(one.number), len(header)), strict=True))
        assert cells["Status"] == {"stopped": "stopped early"}.get(one.status, one.status)
        assert cells["Samples"] == ("–" if one.samples is None else f"{one.samples:,}")
        assert cells["inpainting.rec"] == f"{one.values[REC]:.4g}" and cells["discriminators"] == one.values[KIND]
        for column, name, digits in (
            ("PSNR, in the hole (dB)", "psnr_hole", 2),
            ("Landmark error (px)", "landmark_error", 2),
            ("Dice", "dice", 3),
        ):
            shown = f"{one.scores[name]:.{digits}f}" if one.scores else "–"
            assert cells[column] == shown + (" ★" if one.number == least[name] else "")
        assert cells["Reason"] == one.reason
    assert cells["Role"].startswith("search") and page.row("0", len(header))[1].startswith("paper")
    assert "best" in page.row(str(best_of(rows).number), len(header))[1]


def test_a_stopped_trial_is_best_at_nothing(tmp_path: Path) -> None:
    """Its value is of a shorter training: ahead of whole runs it may be by the noise of its rung, or a curve that fell."""
    rows = [trial(0, 18.0), trial(1, 17.0), trial(2, 19.0, status="stopped", samples=RUNGS[0])]
    page = report(sweeps.write(tmp_path / "a", rows, best=None))
    assert "18.00" in page.best and "19.00" not in page.best and "19.00" in page.text


def test_failed_trials_have_a_section(page: Page, rows: list[Trial]) -> None:
    failed = [one for one in rows if one.status == "failed"]
    assert len(failed) == 3
    for one in failed:
        assert page.row(str(one.number), 4) == [str(one.number), "–", "2", one.reason]


def test_best_and_paper_side_by_side(page: Page, rows: list[Trial]) -> None:
    best = best_of(rows)
    wanted = ["inpainting.rec", f"{best.values[REC]:.4g}", "100", "30 to 300, logarithmic"]
    assert page.row("inpainting.rec") == wanted
    assert page.row("PSNR, in the hole (dB)")[1:3] == [f"{t.scores['psnr_hole']:.2f}" for t in (best, rows[0])]
    assert f"--set {REC}={best.values[REC]:.6g}" in page.text and f"--set {KIND}={best.values[KIND]}" in page.text


def test_curves_are_those_of_the_run_folders(folder: Path, page: Page, rows: list[Trial]) -> None:
    found = read_sweep(folder)
    lines, samples, values, xs, ys = drawn(page, "m0c"), [], [], [], []
    for one, read in zip(rows, found.trials, strict=True):
        curve = (read.curves or {}).get("psnr_hole", ())
        assert [place for place, _ in curve] == [rung for rung in RUNGS if rung <= (one.samples or 0)]
        if curve:
            assert curve[-1][1] == pytest.approx(one.scores["psnr_hole"])
            assert len(lines[one.number]) == len(curve)
            samples += [place for place, _ in curve]
            values += [value for _, value in curve]
            xs += [x for x, _ in lines[one.number]]
            ys += [-y for _, y in lines[one.number]]
        else:
            assert one.number not in lines
        dice = (read.curves or {}).get("dice", ())
        assert len(dice) == len(curve) and (not dice or dice[-1][1] == pytest.approx(one.scores["dice"]))
    is_affine(xs, samples)
    is_affine(ys, values)
    for rung in RUNGS:  # a dotted vertical each
        x = np.polyval(np.polyfit(samples, xs, 1), rung)
        verticals = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL \1 ([\d.]+) \n" clip-path="url\(#m0c-', page.source)
        assert any(abs(float(at) - x) < 0.03 for at, *_ in verticals)


def test_history_shows_every_value(page: Page, rows: list[Trial]) -> None:
    marks = drawn(page, "m0h")
    whole = [one for one in rows if one.status == "done"]
    is_affine([marks[one.number][0][0] for one in rows], [one.number for one in rows])
    is_affine([-marks[one.number][0][1] for one in whole], [one.scores["psnr_hole"] for one in whole])
    stopped = [marks[one.number][0][1] for one in rows if one.status == "stopped"]
    assert min(stopped) > max(marks[one.number][0][1] for one in whole)  # lower on the page, at the edge of the frame
    floor = max(marks[one.number][0][1] for one in rows if one.status == "failed")
    assert all(floor - 8 < y < floor for y in stopped)
    assert f"worse than the frame: {len(stopped)}" in page.text
    for one in whole:
        assert f"trial {one.number}{' (the paper' if one.number == 0 else ', done'}" in page.source
        assert f": {one.scores['psnr_hole']:.2f} dB after 20,480 samples</title>" in page.source
    step = next(x for x in re.findall(r'<path d="([^"]*)" clip-path="url\(#m0h-[^"]*" style="[^"]*--s1', page.source))
    heights = list(dict.fromkeys(float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", step)))
    records = [
        one
        for n, one in enumerate(whole)
        if one.scores["psnr_hole"] >= max(t.scores["psnr_hole"] for t in whole[: n + 1])
    ]
    assert heights == pytest.approx([marks[one.number][0][1] for one in records], abs=0.02)


def test_parallel_coordinates(page: Page, rows: list[Trial]) -> None:
    lines = drawn(page, "par")
    scored = [one for one in rows if one.scores]
    assert set(lines) == {one.number for one in scored} and all(len(line) == 5 for line in lines.values())
    heights = [[-lines[one.number][axis][1] for one in scored] for axis in range(5)]
    is_affine(heights[0], [math.log(one.values[REC]) for one in scored])
    is_affine(heights[2], [math.log(one.values[LR]) for one in scored])
    assert len(set(heights[3])) == 2 and len(set(heights[1])) > 20
    is_affine(heights[4], [one.scores["psnr_hole"] for one in scored])
    shades = {n: int(s) for n, s in re.findall(r'id="par-t(\d+)".*?--r(\d)', page.source.replace("\n", ""))}
    ordered = sorted((one for one in scored if str(one.number) in shades), key=lambda one: one.scores["psnr_hole"])
    found = [shades[str(one.number)] for one in ordered if one.number not in (0, best_of(rows).number)]
    assert found == sorted(found) and found[0] == 0 and found[-1] == 8


def test_labels_are_short_and_tell_keys_apart() -> None:
    tasks = ("inpainting", "segmentation")
    names = [f"loss.weights.{task}.{part}" for task in tasks for part in ("adv", "rec")]
    names += ["optim.generator.lr", "optim.discriminators.lr", "model.discriminators", "schedule.batch", "seed"]
    labels = short_labels([*names, "a.b.c.x", "d.b.c.x", "c.x"])
    assert (
        labels["loss.weights.inpainting.adv"] == "inpainting.adv" and labels["model.discriminators"] == "discriminators"
    )
    assert labels["optim.generator.lr"] == "generator.lr" and labels["schedule.batch"] == "batch"
    assert (labels["a.b.c.x"], labels["d.b.c.x"]) == ("a.b.c.x", "d.b.c.x") and labels["seed"] == "seed"
    assert len(set(labels.values())) == len(labels)
    assert short_labels(["loss.weights.inpainting.rec"]) == {"loss.weights.inpainting.rec": "inpainting.rec"}


def test_importance(page: Page) -> None:
    widths = re.findall(
        r'class="name-of">([^<]*)</span>\s*<span class="track"[^>]*><span style="width: ([\d.]+)%', page.source
    )
    assert widths == [
        ("inpainting.rec", "52.0"), ("generator.lr", "31.0"), ("discriminators", "17.0"),
        ("inpainting.rec", "37.5"), ("generator.lr", "62.5"),
    ]  # fmt: skip
    assert "PED-ANOVA" in page.text and "Rough below some tens of trials" in page.text


# ------------------------------------------------------------------------------------------------ sensitivity


def synthetic(path: Path, shape: Any, count: int = 120, noise: float = 0.1, seed: int = 0, **changes: Any) -> Any:
    """A sweep of whole runs over one λ whose metric is `shape` of its logarithm to 10, plus noise."""
    rng = np.random.default_rng(seed)
    key = {REC: {"kind": "loguniform", "low": 1, "high": 1000}}
    places = rng.permutation((np.arange(count) + 0.5) * 3 / count)
    rows = [
        Trial(n, {REC: float(10**x)}, {"psnr_hole": float(shape(x) + rng.normal(0, noise))})
        for n, x in enumerate(places)
    ]
    found = read_sweep(sweeps.write(path, rows, keys=key, folders=False, scheduler="none", **changes))
    return found, sense.sensitivity(found, found.keys[0], found.main), rows


def test_bins_are_means_of_quantiles(tmp_path: Path) -> None:
    _, found, rows = synthetic(tmp_path / "a", lambda x: 18 - x)
    ordered = sorted(rows, key=lambda one: one.values[REC])
    parts = np.array_split(np.array([one.scores["psnr_hole"] for one in ordered]), 6)
    spread = math.sqrt(sum(((part - part.mean()) ** 2).sum() for part in parts) / (120 - 6))
    assert [bin.mean for bin in found.bins] == pytest.approx([part.mean() for part in parts])
    assert [bin.error for bin in found.bins] == pytest.approx([spread / math.sqrt(20)] * 6)
    assert found.bins[0].low == pytest.approx(math.log10(ordered[0].values[REC])) and found.bins[-1].count == 20


def test_a_flat_top_is_found_and_what_is_lost_beyond_it(tmp_path: Path) -> None:
    """Flat within a decade around 30, 1 dB lost for a third of a decade more on either side."""
    top, page_of = lambda x: 18 - 3 * max(0.0, abs(x - 1.5) - 0.5), tmp_path / "a"
    swept, found, _ = synthetic(page_of, top)
    assert found.sides == {"smaller", "larger"} and not found.all_count
    text = found.sentences[0]
    match = re.fullmatch(
        r"The mean stays within (\S+) dB of its best from (\S+) to (\S+); smaller ones are up to (\S+) dB worse; "
        r"larger ones are up to (\S+) dB worse\.",
        text,
    )
    assert match, text
    within, low, high, below, above = map(float, match.groups())
    assert 9 < low < 11 and 90 < high < 110 and within < 0.5
    means = [bin.mean for bin in found.bins]
    assert below == pytest.approx(max(means) - means[0], abs=0.006) and above == pytest.approx(
        max(means) - means[-1], abs=0.006
    )
    assert "These trials show what the paper says." in sense.verdict([found], swept)
    assert text in report(page_of).text


def test_a_slope_is_half_of_it_and_noise_is_none(tmp_path: Path) -> None:
    swept, found, _ = synthetic(tmp_path / "a", lambda x: 17 + x)
    assert found.sides == {"smaller"} and "reaches the upper end of what was tried: larger ones" in found.sentences[0]
    assert "on one side only" in sense.verdict([found], swept)
    swept, found, _ = synthetic(tmp_path / "b", lambda x: 18)
    assert found.sides == frozenset() and found.sentences[0].startswith("No loss beyond chance")
    assert "These trials do not show it" in sense.verdict([found], swept)


def test_where_smaller_is_better_the_low_end_wins(tmp_path: Path) -> None:
    _, found, _ = synthetic(tmp_path / "a", lambda x: 2 + x, metrics=[{"name": "psnr_hole", "mode": "min"}])
    assert found.sides == {"larger"} and found.bins[0].mean < found.bins[-1].mean
    assert "smaller ones may do as well" in found.sentences[0]


def test_noise_is_seldom_called_a_difference() -> None:
    """Of keys that do nothing, at most one in eight may seem to, at any number of trials."""
    rng, metric, key = np.random.default_rng(0), Metric("psnr", 1), Key("a", "a", "uniform")
    for count in (8, 16, 24, 60):
        false = 0
        for _ in range(200):
            points = [sense.Point(n, x, v, True) for n, (x, v) in enumerate(rng.normal(0, 1, (count, 2)))]
            bins = sense._bins(key, points)
            false += bool(sense._say(key, metric, bins, points)[1])
        assert false <= 25, count


def test_few_whole_runs_say_so(tmp_path: Path) -> None:
    rows = [
        trial(n, 18 - n / 10, samples=RUNGS[-1] if n < 5 else RUNGS[0], status="done" if n < 5 else "stopped")
        for n in range(12)
    ]
    found = read_sweep(sweeps.write(tmp_path / "a", rows, folders=False))
    one = sense.sensitivity(found, found.keys[0], found.main)
    assert one.all_count and one.sentences[0].startswith("Only 5 whole runs, so all trials count")
    assert sum(bin.count for bin in one.bins) == 12
    found = read_sweep(sweeps.write(tmp_path / "b", rows[:7], folders=False))
    one = sense.sensitivity(found, found.keys[0], found.main)
    assert one.sentences == ("7 trials: too few for a mean.",) and not one.bins


def test_what_was_stopped_is_compared_at_the_first_rung(tmp_path: Path) -> None:
    """The whole runs lie on the flat top alone: only where all trials still were does the loss outside show."""
    path = sweeps.write(tmp_path / "a", sweeps.trials(120, seed=2))
    found = read_sweep(path)
    one = sense.sensitivity(found, found.keys[0], found.main)
    assert one.early_sides == {"smaller", "larger"} and len(one.sentences) == 2
    scored = sum(bool(t.curves) for t in found.trials)
    assert one.sentences[1].startswith(f"At 2,304 samples, before any was stopped ({scored} trials): the mean stays")
    text = report(path).text
    assert one.sentences[1] in text and "hides loss outside" in text


def test_choices_have_a_mean_each(tmp_path: Path) -> None:
    rows = [trial(n, 18 + 0.5 * (n % 2) + 0.01 * n) for n in range(20)]
    for one in rows:
        one.values = {KIND: bool(one.number % 2)}
    keys = {KIND: {"kind": "choice", "values": [False, True]}}
    found = read_sweep(sweeps.write(tmp_path / "a", rows, keys=keys, folders=False))
    one = sense.sensitivity(found, found.keys[0], found.main)
    gap = 0.5 + 0.01
    assert (
        one.sentences[0] == f"The mean is best with true (n = 10); false (n = 10) is {gap:.2f} dB worse."
        and one.sides is None
    )
    page = report(tmp_path / "a")
    assert page.row("discriminators")[1] == "true" and page.row(KIND)[1] == "one of false, true"


# ------------------------------------------------------------------------------------------------ Pareto, pictures


def test_the_front_is_numbered_and_connected(page: Page, folder: Path, rows: list[Trial]) -> None:
    found, front = read_sweep(folder), of_three(rows)
    assert found.front == tuple(front) and len(front) > 1
    for uid in ("f0", "f1"):
        chart = next(svg for svg in re.findall(r"<svg .*?</svg>", page.source, re.DOTALL) if f'id="{uid}-' in svg)
        numbers = re.findall(r">(\d+)</text>", chart)
        assert set(map(str, front)) <= set(numbers)
        assert set(drawn(page, uid)) == {t.number for t in rows if t.status == "done"}
    marks = drawn(page, "f1")
    whole = [t for t in rows if t.status == "done"]
    is_affine([marks[t.number][0][0] for t in whole], [t.scores["psnr_hole"] for t in whole])
    is_affine([-marks[t.number][0][1] for t in whole], [t.scores["landmark_error"] for t in whole])
    joined = undominated([t for t in found.trials if t.number in front], found.metrics[0], found.metrics[2])
    assert len(joined) > 1 and max(joined, key=lambda t: t.scores["psnr_hole"]).number == best_of(rows).number
    pairs = sorted((t.scores["psnr_hole"], t.scores["landmark_error"]) for t in joined)
    assert [b for _, b in pairs] == sorted(
        b for _, b in pairs
    )  # better in one is worse in the other: it never turns back


def test_one_metric_has_no_front(tmp_path: Path) -> None:
    text = report(sweeps.write(tmp_path / "a", [trial(n, 18.0 + n) for n in range(3)])).text
    assert "Pareto" not in text and "Other metrics" not in text and "PED-ANOVA" not in text


def test_pictures_of_best_and_paper(page: Page, rows: list[Trial]) -> None:
    pictures = [attrs["alt"] for tag, attrs in page.tags if tag == "img"]
    best = f"Trial {best_of(rows).number}, the best"
    assert len(pictures) == 2 and pictures[0].startswith(f"{best}. Sample pictures at step 640.")
    assert pictures[1].startswith("Trial 0, the paper's λ. Sample pictures at step 640.")
    assert f"{best}: step 640" in page.text and "masked, completed" in page.text


def test_what_a_trials_folder_lacks_is_no_error(tmp_path: Path) -> None:
    path = sweeps.write(tmp_path / "a", [trial(0, 18.5, role="paper"), trial(1, 18.6)])
    make.grid(path / "trials" / "t000" / "grids" / "step-00000640.png")
    make.grid(path / "trials" / "t001" / "grids" / "step-00000640.png")
    (path / "trials" / "t001" / "grids" / "step-00000640.png").write_bytes(b"none")
    (path / "trials" / "t000" / "metrics.jsonl").write_text('{"kind": "ev\n{"kind": "event"}\n')
    page = report(path)
    assert "step-00000640.png cannot be shown" in page.text and "The curve of trial 0 is left out" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]  # its log is damaged, the other's picture
    (path / "trials" / "t001" / "config.yaml").unlink()
    assert "The curve of trial 1 is left out" in report(path).text


# ------------------------------------------------------------------------------------------------ whatever comes


def some(count: int, **changes: Any) -> list[Trial]:
    return [trial(n, 18 + n / 10, **changes) for n in range(count)]


EMPTY = Trial(3, {}, {}, status="waiting", samples=None)
STRANGE: dict[str, list[Trial]] = {
    "no trials": [],
    "one": some(1),
    "one, the paper's": some(1, role="paper"),
    "all failed": [Trial(n, {REC: 50.0}, {}, "failed", samples=None, reason="CUDA out of memory") for n in range(3)],
    "none has started": [Trial(n, {}, {}, "waiting", samples=None) for n in range(3)],
    "under way": [*some(2, status="running", samples=RUNGS[0]), EMPTY],
    "all alike": [trial(0, 18.0), *(Trial(n, trial(0, 18.0).values, {"psnr_hole": 18.0}) for n in range(1, 20))],
    "not finite": [trial(0, 18.5), trial(1, math.nan), trial(2, math.inf), Trial(4, {REC: math.nan}, {"psnr_hole": 18.0})],
    "words for numbers": [Trial(n, {REC: "auto" if n else -5.0}, {"psnr_hole": 18.0 + n}) for n in range(12)],
    "an unknown choice": [Trial(n, {KIND: "other"}, {"psnr_hole": 18.0 + n}, status="odd") for n in range(9)],
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "bare": dict.fromkeys(
        ("about", "status", "scheduler", "search", "trials", "seed", "rungs", "paper", "front", "importance", "seconds",
         "samples_trained")
    ),
    "three metrics": {"metrics": THREE, "front": [0, 1], "scheduler": "pbt", "status": "interrupted"},
}  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("rows", STRANGE.values(), ids=STRANGE)
def test_there_is_always_a_page(tmp_path: Path, rows: list[Trial], changes: dict[str, Any]) -> None:
    page = report(sweeps.write(tmp_path / "a", rows, folders=changes == {}, **changes))
    header = next((row for row in page.rows if row[:2] == ["Trial", "Role"]), [])
    assert [row[0] for row in page.rows if header and len(row) == len(header)][1:] == [str(t.number) for t in rows]
    assert "nan" not in page.text.lower().split() and "None" not in page.text
    if not rows:
        assert "No trial has started yet." in page.text
    if rows and rows[0].status == "failed":
        assert (
            "Every trial failed; the reasons are below." in page.text and page.row("2", 4)[-1] == "CUDA out of memory"
        )


@pytest.mark.parametrize("gone", ["status", "role", "psnr_hole", REC, "samples", "seed", "reason", "steps"])
def test_a_missing_column_is_no_error(tmp_path: Path, rows: list[Trial], gone: str) -> None:
    path = sweeps.write(tmp_path / "a", rows)
    with (path / "trials.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    with (path / "trials.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in table[0] if name != gone], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    assert "Trials" in report(path).text


def test_files_that_are_not_there_yet(tmp_path: Path) -> None:
    path = sweeps.write(tmp_path / "a", [])
    (path / "trials.csv").unlink()
    assert "No trial has started yet." in report(path).text
    (path / "trials.csv").write_text("")
    assert "No trial has started yet." in report(path).text


def test_a_choice_reads_the_same_from_json_and_csv() -> None:
    for value in (True, False, None, 0.5, 16, "own", "1e-3", [1, 2], ["a", "b"], "no, thanks"):
        for written in (str(value), json.dumps(value)):
            assert word_of(word_of(written)) == word_of(written)
        assert word_of(json.dumps(value)) == word_of(value)
    assert word_of("True") == word_of(True) == "true" and word_of("16.0") == word_of(16) == "16"


def test_names_cannot_run_code(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    keys = {f"model.{evil}": {"kind": "choice", "values": [evil, "$x_{$"]}}
    rows = [Trial(n, {f"model.{evil}": evil}, {"psnr_hole": 18.0 + n}, "done", reason=evil) for n in range(9)]
    rows.append(Trial(9, {}, {"psnr_hole": 20.0}, evil, role=evil))
    path = sweeps.write(
        tmp_path / "<script>alert(2)<",
        rows,
        keys=keys,
        about=evil,
        search=evil,
        importance={"psnr_hole": {f"model.{evil}": 1}},
    )
    page = report(path)
    assert "script" not in {tag for tag, _ in page.tags} and evil in page.text


def test_an_empty_cell_may_say_so_in_words(tmp_path: Path) -> None:
    path = sweeps.write(tmp_path / "a", some(2), folders=False)
    (path / "trials.csv").write_text(
        f"trial,status,steps,{REC},psnr_hole,samples\n0,done,None,NaN,null,none\n1,done,,50,18.5,\n"
    )
    first, second = read_sweep(path).trials
    assert (first.steps, first.samples, first.values[REC], first.scores) == (None, None, None, {})
    assert (second.values[REC], second.scores) == (50.0, {"psnr_hole": 18.5})


DAMAGED = {
    "cut short": ("sweep.json", '{"version": 1, "met', "not readable as JSON"),
    "a list": ("sweep.json", "[]", "a JSON object is expected"),
    "newer": ("sweep.json", '{"version": 2}', "is of version 2"),
    "without metrics": ("sweep.json", '{"version": 1, "metrics": [], "keys": {}}', "no metric is named"),
    "a strange mode": ("sweep.json", '{"version": 1, "metrics": [{"name": "psnr", "mode": "up"}], "keys": {}}', "'up'"),
    "without keys": ("sweep.json", '{"version": 1, "metrics": [{"name": "psnr", "mode": "max"}]}', "'keys'"),
    "no header": ("trials.csv", "0,done,640\n", 'a column "trial"'),
    "a short row": ("trials.csv", "trial,status\n0,done\n1\n", "row 3: 1 cells under 2 names"),
    "a word": ("trials.csv", "trial,psnr_hole\n0,good\n", "row 2: a number is expected under \"psnr_hole\", found 'good'"),
    "no number": ("trials.csv", "trial,status\nx,done\n", "under \"trial\", found 'x'"),
    "twice": ("trials.csv", "trial,status\n0,done\n0,done\n", "trial 0 stands there twice"),
    "bytes": ("trials.csv", "\udcff", "not readable as CSV"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_one_error(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = sweeps.write(tmp_path / "a", some(2))
    (path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        write_report([path])
    assert str(path / name) in str(caught.value) and words in str(caught.value)
    assert "collagan" in str(caught.value) and not (path / "report.html").exists()


def test_a_sweep_is_named_alone_and_a_run_stays_a_run(tmp_path: Path) -> None:
    path = sweeps.write(tmp_path / "a", some(2))
    with pytest.raises(DataError, match=r"is a sweep, .* Name it alone"):
        write_report([path, tmp_path / "b"])
    run = make.bare_run(tmp_path / "run")
    (run / "sweep.json").write_text("{}")
    assert "no steps yet" in Page(write_report([run]).read_text()).text
    assert write_report([path], tmp_path / "page.html") == tmp_path / "page.html"


def test_settings(page: Page) -> None:
    assert page.row("rungs, in samples")[1] == "2,304 · 6,912 · 20,480" and page.row("seed")[1] == "0"
    assert (
        page.row("metrics")[1].startswith("psnr_hole (larger is better), dice") and "smaller" in page.row("metrics")[1]
    )
    assert page.row("scheduler")[1].startswith("ASHA") and page.row("search")[1].startswith("TPE")
    for key in KEYS:
        assert page.row(key)[2] == ("–" if key not in PAPER else f"{PAPER[key]}")


def test_never_needs_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import collagan_dist.report.page as r;"
        "assert not {'matplotlib', 'numpy', 'PIL', 'jinja2'} & set(sys.modules), 'import is heavy';"
        "r.write_report([Path(sys.argv[1])], Path(sys.argv[2])); assert 'torch' not in sys.modules"
    )
    target = tmp_path / "page.html"
    subprocess.run([sys.executable, "-c", code, str(folder), str(target)], check=True, timeout=60)
    assert target.is_file()
