"""Tables and claims from scored folders whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from collagan_dist.report.paper_tables import is_significant
from collagan_dist.reproduce import claims, paper, tables
from collagan_dist.reproduce.plan import PlannedRun
from collagan_dist.reproduce.results import Results
from collagan_dist.types import CLASSES
from tests.reproduce.scored import (
    MANIFEST,
    as_printed,
    random_counts,
    run_of,
    write,
    write_dice,
    write_points,
    write_quality,
)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[PlannedRun]:
    return as_printed(tmp_path_factory.mktemp("printed"))


def tried(runs: list[PlannedRun], table: int) -> dict[str, dict[str, Any]]:
    return {one["claim"]: one for one in claims.try_claims(Results(runs, MANIFEST), (table,))}


def test_table1_has_the_contracts_shape(printed: list[PlannedRun]) -> None:
    table = tables.make_table(1, Results(printed, MANIFEST))
    assert table["rows"] == list(paper.rows(1)) and table["columns"] == ["O1", "O2", "O3", "O4", "O5", "O6"]
    assert set(table["cells"]) == set(table["rows"])
    for row in table["cells"].values():
        assert list(row) == table["columns"]
        for cell in row.values():
            assert set(cell) == {"ssim", "psnr", "ssim_blended", "psnr_blended"}
            for number in cell.values():
                assert set(number) == {"paper", "ours", "se"}
                assert number["ours"] == pytest.approx(number["paper"], abs=1e-6) and number["se"] > 0
    assert tables.missing(1, Results(printed, MANIFEST)) == 0 and json.dumps(table, allow_nan=False)


def test_markdown_says_what_differs_and_what_is_missing(tmp_path: Path) -> None:
    run = run_of(tmp_path, "M_d")
    write_points(run, np.full((30, 5), 2.0) + np.random.default_rng(0).normal(0, 0.1, (30, 5)))
    table = tables.make_table(3, Results([run], MANIFEST))
    assert tables.missing(3, Results([run], MANIFEST)) == 3 * 6 and table["cells"]["M_id"]["nose"] == {
        "paper": 2.15,
        "ours": None,
        "se": None,
    }
    text = tables.markdown(3, table)
    assert "| 2.15 / – / – |" in text and r"M\*\_isd" in text
    cell = table["cells"]["M_d"]["nose"]
    assert f"2.53 / {cell['ours']:.2f} ± {cell['se']:.2f} / **−{2.53 - cell['ours']:.2f}**" in text
    same = {"paper": 2.0, "ours": 2.1, "se": 0.06}
    assert tables.text(same) == "2.00 / 2.10 ± 0.06 / +0.10" and not is_significant(same)


def test_table2_is_the_tasks_own_dice(tmp_path: Path) -> None:
    run = run_of(tmp_path, "M_s")
    write_dice(run, random_counts(np.random.default_rng(3), 60, 0.7))
    results = Results([run], MANIFEST)
    row = tables.make_table(2, results)["cells"]["M_s"]
    parts = [cell["ours"] for name, cell in row.items() if name != "average"]
    assert row["average"]["ours"] == pytest.approx(np.mean(parts)) and 60 < row["average"]["ours"] < 80
    for column in (*paper.columns(2),):  # rows by sample give the number and, of a class, the error that the JSON has
        estimate = results.estimate("M_s", paper.score(2, column))
        assert estimate is not None and estimate.value == pytest.approx(row[column]["ours"])
        if column != "average":
            assert estimate.se == pytest.approx(row[column]["se"])


def test_trivial_baselines_stand_beside_the_rows(printed: list[PlannedRun], tmp_path: Path) -> None:
    """Those of the runs that share a picture size, on as many samples as they were computed on."""
    assert "baselines" not in tables.make_table(1, Results(printed, MANIFEST))
    runs = [run_of(tmp_path, "SII", data={"image_size": 64}), run_of(tmp_path, "M_i"), run_of(tmp_path, "M_id")]
    for run, psnr in zip(runs, (40.0, 25.0, 25.0), strict=True):
        metrics = {"psnr": 27.0, "ssim": 0.9, "samples": 9, "baselines": {"biharmonic": {"psnr": psnr, "ssim": 0.88}}}
        write(run, "O2", False, metrics | {"baselines_subset": {"samples": 4}}, {"ids": np.arange(9)})
    table = tables.make_table(1, Results(runs, MANIFEST))
    assert table["baselines"] == {"biharmonic": {"O2": {"ssim": pytest.approx(88), "psnr": 25.0, "samples": 4}}}


def test_rows_scored_at_another_size_are_noted(printed: list[PlannedRun], tmp_path: Path) -> None:
    """By what each run is scored at: evaluate.size where it is given."""
    model = {"name": "sii", "tasks": ["inpainting"], "concentrated": False, "output_bias": "zero"}
    sizes = {"SII": {"model": model, "data": {"image_size": 32}, "evaluate": {"size": 64}}}
    runs = [run_of(tmp_path, model, **sizes.get(model, {})) for model in paper.rows(1)]
    table = tables.make_table(1, Results(runs, MANIFEST))
    assert table["note"].endswith(": SII at 64x64 pixels, the others at 128x128.")
    assert table["note"] in tables.markdown(1, table)
    assert "note" not in tables.make_table(1, Results(printed, MANIFEST))


def test_what_no_evaluation_can_tell_is_not_missing(tmp_path: Path) -> None:
    """No face of the test split shows teeth: its cell stays empty, and no run is waited for."""
    counts = random_counts(np.random.default_rng(3), 60, 0.7)
    counts[:, CLASSES.index("teeth")] = 0
    runs = [run_of(tmp_path, model) for model in paper.rows(2)]
    for run in runs:
        write_dice(run, counts)
    results = Results(runs, MANIFEST)
    table = tables.make_table(2, results)
    assert table["cells"]["M_s"]["teeth"]["ours"] is None and table["cells"]["M_s"]["nose"]["ours"] > 0
    assert tables.missing(2, results) == 0
    another = run_of(tmp_path, "M_s", seed=1)
    assert tables.missing(2, Results([*runs, another], MANIFEST)) == 10


def test_several_seeds(tmp_path: Path) -> None:
    """Their mean, each of them, their spread; the error over samples is that of the mean of each sample."""
    generator = np.random.default_rng(4)
    errors = [generator.gamma(4, 0.5, (25, 5)) for _ in range(3)]
    runs = [run_of(tmp_path, "M_isd", seed) for seed in range(3)]
    for run, values in zip(runs, errors, strict=True):
        write_points(run, values)
    cell = tables.make_table(3, Results(runs, MANIFEST))["cells"]["M_isd"]["average"]
    means = [values.mean() for values in errors]
    assert cell["ours"] == pytest.approx(np.mean(means)) and cell["seeds"] == pytest.approx(means)
    assert cell["sd"] == pytest.approx(np.std(means, ddof=1))
    assert cell["se"] == pytest.approx(np.mean(errors, axis=0).mean(1).std(ddof=1) / 5)
    assert "3 seeds" in tables.text(cell)


def test_an_evaluation_of_another_step_set_or_way_does_not_count(tmp_path: Path) -> None:
    run = run_of(tmp_path, "M_d")
    write_points(run, np.ones((4, 5)))
    other_way = run_of(tmp_path, "M_d", evaluate={"readout": "argmax"})
    longer = PlannedRun(run.name, run.base, run.config, run.out, 4)
    score = paper.score(3, "nose")
    assert Results([run], MANIFEST).values("M_d", score) == [1.0]
    assert not Results([run], "another").values("M_d", score)
    assert not Results([other_way], MANIFEST).values("M_d", score)
    assert not Results([longer], MANIFEST).values("M_d", score)


def test_the_papers_numbers_hold_all_claims_on_table_1(printed: list[PlannedRun]) -> None:
    found = tried(printed, 1)
    assert len(found) == 25
    assert {claim["verdict"] for claim in found.values()} == {"holds"}, [
        c for c in found.values() if c["verdict"] != "holds"
    ]
    one = found["Landmarks help completion: M_id beats M_i"]
    assert one["paper"] == "SSIM +0.55 %, PSNR +0.31 dB" and one["ours"].count("***") == 2
    detail = one["details"][1]
    assert detail["metric"] == "psnr" and detail["blended"] and detail["samples"] == 40
    assert detail["positions"]["O1"]["ours"] == pytest.approx(27.57 - 27.23)
    order = found["Table 1 orders the eight models as printed"]
    assert order["details"][0]["columns"]["O1"] == pytest.approx(1)
    assert found["SII gives the worst results in all the cases"]["ours"] == "12 of 12"
    assert found["The holes of Table 1 have 40x48 pixels on average"]["ours"] == "40x48"


def test_a_comparison_within_chance_is_undecided_and_a_reverse_one_does_not_hold(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    runs = [run_of(tmp_path, "M_i"), run_of(tmp_path, "M_id"), run_of(tmp_path, "M_is")]
    for hole in paper.columns(1):
        noise = generator.normal(0, 1, (3, 50))
        write_quality(runs[0], hole, 0.9 + 0.01 * noise[0], 27 + noise[0])
        write_quality(runs[1], hole, 0.9 + 0.01 * noise[1], 27 + noise[1] - noise[1].mean() + noise[0].mean())
        write_quality(runs[2], hole, 0.85 + 0.01 * noise[2], 29 + noise[2])
    found = tried(runs, 1)
    assert found["Landmarks help completion: M_id beats M_i"]["verdict"] == "undecided"
    assert found["Segmentation helps completion: M_is beats M_i"]["verdict"] == "does not"  # SSIM fell
    assert found["M_id beats CE"]["verdict"] == "not scored" and found["M_id beats CE"]["ours"] is None


def test_table_3s_reduction(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    before = generator.gamma(4, 0.6, (200, 5))
    runs = [run_of(tmp_path, "M_d"), run_of(tmp_path, "M*_isd")]
    write_points(runs[0], before)
    write_points(runs[1], 0.72 * before)
    claim = tried(runs, 3)["The average landmark error falls by 27.7 % from M_d to M*_isd"]
    assert claim["verdict"] == "holds" and claim["paper"] == "−27.7 %" and claim["ours"].startswith("−28.0 %")
    write_points(runs[1], before[::-1])
    assert tried(runs, 3)[claim["claim"]]["verdict"] == "undecided"


def test_dice_comparisons_have_a_bootstraps_interval(tmp_path: Path) -> None:
    generator = np.random.default_rng(10)
    runs = [run_of(tmp_path, "M_s"), run_of(tmp_path, "M_is")]
    write_dice(runs[0], random_counts(generator, 80, 0.7))
    write_dice(runs[1], random_counts(generator, 80, 0.72))
    claim = tried(runs, 2)["Completion helps segmentation: M_is beats M_s"]
    detail = claim["details"][0]
    low, high = detail["interval"]
    assert claim["verdict"] == "holds" and low < detail["ours"] < high
    assert (high - low) / 2 == pytest.approx(1.96 * detail["se"], rel=0.15)


def test_few_seeds_widen_what_is_close_and_the_reduction(tmp_path: Path) -> None:
    """Two seeds that agree within a third of the margin leave one degree of freedom: 12.7 standard errors, not 1.96."""
    generator = np.random.default_rng(12)
    base = generator.gamma(4, 0.6, (60, 5))
    base /= base.mean()
    for model, shifts in (("M*_isd", (0.0, 0.02)), ("M_isd", (0.0,)), ("M_d", (1.0, 1.5, 1.8))):
        for seed, shift in enumerate(shifts):
            write_points(run_of(tmp_path, model, seed), base + shift)
    runs = [run_of(tmp_path, m, s) for m, n in (("M*_isd", 2), ("M_isd", 1), ("M_d", 3)) for s in range(n)]
    found = tried(runs, 3)
    close = found["The scheme adds nothing to landmarks: M*_isd and M_isd are close"]
    detail = close["details"][0]
    assert detail["freedom"] == pytest.approx(1) and detail["se"] == pytest.approx(0.01)
    assert close["verdict"] == "undecided" and abs(detail["ours"]) + 1.96 * detail["se"] < 0.1

    (detail,) = found["The average landmark error falls by 27.7 % from M_d to M*_isd"]["details"]
    now, before = (np.array(shifts) + 1 for shifts in ((0.0, 0.02), (1.0, 1.5, 1.8)))
    drawn = generator.normal(now.mean(), now.std(ddof=1) / np.sqrt(2), 100_000) / generator.normal(
        before.mean(), before.std(ddof=1) / np.sqrt(3), 100_000
    )
    assert detail["sd_seeds"] == pytest.approx(drawn.std(), rel=0.05)
    assert detail["se"] ** 2 == pytest.approx(detail["se_samples"] ** 2 + detail["sd_seeds"] ** 2)
    low, high = detail["interval"]
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, detail["freedom"]) * detail["se"])


def test_seeds_are_paired_by_their_number(tmp_path: Path) -> None:
    """Seed 0 lacks a position, seed 1 another: only seed 2 and 3 say what a seed changes."""
    generator = np.random.default_rng(13)
    runs = [run_of(tmp_path, "M_i", seed) for seed in range(4)] + [run_of(tmp_path, "M_id")]
    for number, hole in enumerate(paper.columns(1)):
        for run in runs:
            if run.base == "M_id" or run.config.seed != number:
                write_quality(run, hole, np.full(9, 0.9), 27 + run.config.seed**2 + generator.normal(0, 1, 9))
    detail = tried(runs, 1)["Landmarks help completion: M_id beats M_i"]["details"][1]
    scores = [paper.score(1, column, "psnr_blended") for column in paper.columns(1)]
    results = Results(runs[:4], MANIFEST)
    assert "sd_seeds" not in detail and len(results.values("M_i", scores[0])) == 3
    for run in runs[:4]:
        write_quality(run, "O3", np.full(9, 0.9), 27 + run.config.seed**2 + np.zeros(9))
        write_quality(run, "O4", np.full(9, 0.9), 27 + run.config.seed**2 + np.zeros(9))
    detail = tried(runs, 1)["Landmarks help completion: M_id beats M_i"]["details"][1]
    by_seed = [np.mean([results.seeds("M_i", score)[seed].value for score in scores]) for seed in (2, 3)]
    assert detail["sd_seeds"] == pytest.approx(np.std(by_seed, ddof=1) / np.sqrt(2))


def test_the_seeds_variance_is_part_of_the_error(tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    base = generator.gamma(4, 0.6, (60, 5))
    shifts = (0.0, 0.3, -0.2)
    runs = [run_of(tmp_path, "M_isd", seed) for seed in range(3)] + [run_of(tmp_path, "M_d")]
    for run, shift in zip(runs, (*shifts, 0.5), strict=True):
        write_points(run, base + shift)
    claim = tried(runs, 3)["Three tasks beat one: M_isd beats M_d"]
    detail = claim["details"][0]
    assert detail["se_samples"] == pytest.approx(0, abs=1e-9) and detail["ours"] == pytest.approx(np.mean(shifts) - 0.5)
    assert detail["se"] == pytest.approx(np.std(shifts, ddof=1) / np.sqrt(3))
    note = claims.seeds_note(Results(runs, MANIFEST), (3,))
    assert "M_isd (3)" in note and "not covered: M_d." in note
