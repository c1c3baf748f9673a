import json

import numpy as np
import pytest
from scipy import stats

from collagan_dist.report.paper_tables import is_significant
from collagan_dist.reproduce import paper, tables
from collagan_dist.reproduce.plan import chosen_models
from collagan_dist.reproduce.results import Results
from collagan_dist.types import CLASSES
from tests.reproduce.evaluated import MANIFEST, random_counts, run_of, write, write_dice, write_points


def test_table1_has_the_contracts_shape(printed):
    table = tables.make_table(1, Results(printed, MANIFEST))
    assert table["rows"] == list(paper.rows(1)) == list(table["cells"])
    for row in table["cells"].values():
        assert list(row) == table["columns"] == ["O1", "O2", "O3", "O4", "O5", "O6"]
        for cell in row.values():
            assert set(cell) == {"ssim", "psnr", "ssim_blended", "psnr_blended"}
            for number in cell.values():
                assert number == {"paper": number["paper"], "ours": pytest.approx(number["paper"]), "se": number["se"]}
                assert number["se"] > 0
    # The three controls are not scored.
    assert tables.missing(1, Results(printed, MANIFEST), chosen_models(1, ())) == 3 * 6 * 4 and json.dumps(
        table, allow_nan=False
    )
    assert table["parts"]["O4"] == "left eye" and "O1 left half" in table["note"]
    assert "| | O1 left half | O2 right half |" in tables.table_markdown(1, table)


def test_by_the_papers_words_the_same_evaluations_stand_in_other_columns(printed):
    by_words = tables.make_table(1, Results(printed, MANIFEST, "words"))
    by_numbers = tables.make_table(1, Results(printed, MANIFEST))
    assert by_words["parts"]["O1"] == "left eye" and "words" in by_words["note"]
    for model in paper.rows(1):
        one, other = by_words["cells"][model], by_numbers["cells"][model]
        assert {c: cell["psnr"]["paper"] for c, cell in one.items()} == {
            c: cell["psnr"]["paper"] for c, cell in other.items()
        }
        assert one["O1"]["psnr"]["ours"] == other["O4"]["psnr"]["ours"] == pytest.approx(other["O4"]["psnr"]["paper"])
        assert one["O6"] == other["O6"] and one["O1"]["psnr"]["ours"] != pytest.approx(
            one["O1"]["psnr"]["paper"], abs=1
        )


def test_controls_have_no_number_of_the_paper(tmp_path):
    generator = np.random.default_rng(6)
    runs = [run_of(tmp_path, "M*_id"), run_of(tmp_path, "M_d")]
    for run in runs:
        write_points(run, generator.gamma(4, 0.5, (25, 5)))
    controls = tables.make_controls((1, 3), Results(runs, MANIFEST))
    assert controls["rows"] == ["M*_i", "M*_id", "M*_is"] and controls["parts"] == paper.parts("numbers")
    cell = controls["table3"]["cells"]["M*_id"]["nose"]
    assert controls["table3"]["rows"] == ["M*_id"] and cell["paper"] is None and cell["ours"] > 0
    assert f"| Nose | – / {cell['ours']:.2f} ± {cell['se']:.2f} / – |" in tables.controls_markdown(controls)
    assert not is_significant(cell)
    assert list(tables.make_controls((1, 3), Results(runs, MANIFEST), ("M_d", "M*_id"))) == [
        "rows",
        "columns",
        "cells",
        "parts",
        "table3",
    ]
    assert list(tables.make_controls((1, 3), Results(runs, MANIFEST), ("M_d", "M*_i"))["cells"]) == ["M*_i"]


def test_markdown_says_what_differs_and_what_is_missing(tmp_path):
    run = run_of(tmp_path, "M_d")
    write_points(run, np.full((30, 5), 2.0) + np.random.default_rng(0).normal(0, 0.1, (30, 5)))
    table = tables.make_table(3, Results([run], MANIFEST))
    assert tables.missing(3, Results([run], MANIFEST), chosen_models(3, ())) == (3 + 1) * 6  # with the control M*_id
    assert table["cells"]["M_id"]["nose"] == {"paper": 2.15, "ours": None, "se": None}
    text = tables.table_markdown(3, table)
    assert "| 2.15 / – / – |" in text and r"M\*\_isd" in text
    cell = table["cells"]["M_d"]["nose"]
    assert f"2.53 / {cell['ours']:.2f} ± {cell['se']:.2f} / **−{2.53 - cell['ours']:.2f}**" in text
    same = {"paper": 2.0, "ours": 2.1, "se": 0.06}
    assert tables.cell_text(same) == "2.00 / 2.10 ± 0.06 / +0.10" and not is_significant(same)


def test_rows_scored_at_another_size_are_noted(printed, tmp_path):
    model = {"name": "sii", "tasks": ["inpainting"], "concentrated": False, "output_bias": "zero"}
    sizes = {"SII": {"model": model, "data": {"image_size": 32}, "evaluate": {"size": 64}}}
    runs = [run_of(tmp_path, model, **sizes.get(model, {})) for model in paper.rows(1)]
    table = tables.make_table(1, Results(runs, MANIFEST))
    size_note = "SII at 64x64 pixels, the others at 128x128."
    assert table["note"].endswith(size_note) and table["note"] in tables.table_markdown(1, table)
    assert size_note not in tables.make_table(1, Results(printed, MANIFEST))["note"]


def test_what_no_evaluation_can_tell_is_not_missing(tmp_path):
    """No face of the test split shows teeth: its cell stays empty, and no run is waited for."""
    counts = random_counts(np.random.default_rng(3), 60, 0.7)
    counts[:, CLASSES.index("teeth")] = 0
    runs = [run_of(tmp_path, model) for model in (*paper.rows(2), *paper.controls(2))]
    for run in runs:
        write_dice(run, counts)
    results = Results(runs, MANIFEST)
    table = tables.make_table(2, results)
    assert table["cells"]["M_s"]["teeth"]["ours"] is None and table["cells"]["M_s"]["nose"]["ours"] > 0
    assert tables.missing(2, results, chosen_models(2, ())) == 0
    another = run_of(tmp_path, "M_s", seed=1)
    assert tables.missing(2, Results([*runs, another], MANIFEST), chosen_models(2, ())) == 10


def test_several_seeds(tmp_path):
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
    assert cell["se"] == pytest.approx(stats.sem(np.mean(errors, axis=0).mean(1)), rel=0.08)
    assert "3 seeds" in tables.cell_text(cell)


def test_completions_in_the_features_of_a_network(tmp_path):
    """They stand beside Table 1 where they were measured, with those of the baselines."""
    run = run_of(tmp_path, "M_i")
    baseline = {"biharmonic": {"psnr": 24.0, "ssim": 0.9, "perceptual": 0.25, "frechet": 7.0}}
    metrics = {"psnr": 25.0, "ssim": 0.9, "samples": 9, "perceptual": 0.125, "frechet": 3.0, "baselines": baseline}
    write(run, "O4", False, metrics, {"ids": np.arange(9)})
    table = tables.make_table(1, Results([run], MANIFEST))
    ours = {"perceptual": 0.125, "frechet": 3.0}
    assert table["perception"] == {"M_i": {"O1": ours}, "biharmonic": {"O1": {"perceptual": 0.25, "frechet": 7.0}}}
    text = tables.table_markdown(1, table)
    assert "## Perceptual distance, not blended; lower is better" in text and r"| M\_i | 0.125 | – | – |" in text
    assert "| Biharmonic | 7 | – |" in text


def test_controls_have_their_distances_in_features_too(tmp_path):
    run = run_of(tmp_path, "M*_i")
    write(
        run,
        "O4",
        False,
        {"psnr": 25.0, "ssim": 0.9, "samples": 9, "perceptual": 0.125, "frechet": 3.0},
        {"ids": np.arange(9)},
    )
    controls = {"about": "", **tables.make_controls([1], Results([run], MANIFEST))}
    assert controls["perception"] == {"M*_i": {"O1": {"perceptual": 0.125, "frechet": 3.0}}}
    assert r"| M\*\_i | 3 | – | – |" in tables.controls_markdown(controls)
