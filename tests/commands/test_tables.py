import json
from dataclasses import replace

from collagan_dist.commands import tables
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.estimate import RunEstimate
from tests.reproduce.evaluated import run_of


def rows(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_metrics_beside_their_errors_and_baselines(capsys):
    metrics = {
        "samples": 6, "split": "test", "hole": "block", "hole_size": [20.0, 24.0], "blend": "poisson", "psnr": 27.123,
        "dice": {"face": 0.9, "mean": 0.7}, "se": {"psnr": 0.5}, "baselines": {"mean_colour": {"psnr": 15.0}},
        "baselines_subset": {"samples": 4},
    }  # fmt: skip
    tables.metrics_table(metrics)
    text = capsys.readouterr().out
    assert "6 test samples, block holes of 20.0x24.0 pixels, blended; baselines on the first 4" in text
    assert all(words in text for words in ("mean", "colour"))
    lines = [line.split() for line in text.splitlines()]
    assert ["PSNR,", "dB", "27.12", "0.50", "15.00"] in lines
    assert ["Dice,", "mean", "of", "classes", "0.700"] in lines and "SSIM" not in text


def test_the_table_of_all_tasks_fits_80_columns(capsys, monkeypatch):
    """With baselines on a part of the samples, too: no number is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    row = {"psnr_hole": 22.081, "ssim_hole": 0.672, "dice": {"mean": 0.624}, "landmark_error": {"mean": 10.68}}
    names = ("mean_colour", "biharmonic", "mean_labels", "mean_landmarks")
    facts = {"samples": 600, "split": "test", "hole": "block", "blend": "none", "baselines_subset": {"samples": 512}}
    tables.metrics_table({**facts, **row, "se": row, "baselines": dict.fromkeys(names, row)})
    text = capsys.readouterr().out
    assert "…" not in text and max(map(len, text.splitlines())) <= 80 and text.count("22.08") == 6


def test_planned_runs_with_their_sums(capsys, tmp_path):
    run = replace(run_of(tmp_path, "M_d", schedule={"steps": 10, "batch": 4}), steps=10)
    facts = ((5, False, 90.0, 2_000_000), (10, False, 0.0, 1_000_000), (10, True, None, None))
    tables.plan_table([RunEstimate(run, *one) for one in facts])
    found = rows(capsys)
    assert ["M_d", "10", "40", "50%", "1.5", "min", "2.0", "MB"] in found
    assert ["M_d", "10", "40", "trained", "0", "s", "1.0", "MB"] in found
    assert ["M_d", "10", "40", "yes", "unknown", "unknown"] in found
    assert ["30", "120", "1.5", "min", "3.0", "MB"] in found  # of the known ones


def test_averages_of_a_reproduction(capsys, tmp_path):
    """Of Table 1 blended numbers over all positions, or none."""
    cell = {kind: {"paper": 20.0, "ours": 21.0, "se": 0.1} for kind in paper.kinds(1)}
    missing = {**cell, "psnr_blended": {"paper": 20.0, "ours": None, "se": None}}
    head1 = {"about": "", "rows": ["M_i", "CE"], "columns": ["O1", "O2"]}
    table1 = {**head1, "cells": {"M_i": {"O1": cell, "O2": cell}, "CE": {"O1": cell, "O2": missing}}}
    table3 = {
        "about": "",
        "rows": ["M_d"],
        "columns": ["average"],
        "cells": {"M_d": {"average": {"paper": 2.38, "ours": 2.0, "se": 0.1}}},
    }
    for number, table in ((1, table1), (3, table3)):
        (tmp_path / f"table{number}.json").write_text(json.dumps(table))
    tables.averages_table(tmp_path, (1, 3))
    found = rows(capsys)
    assert ["1", "M_i", "PSNR", "dB,", "blended", "20.00", "21.00", "+1.00"] in found
    assert ["1", "CE", "PSNR", "dB,", "blended", "20.00", "–", "–"] in found
    assert ["3", "M_d", "landmark", "error,", "pixels", "2.38", "2.00", "-0.38"] in found
