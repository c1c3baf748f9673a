import numpy as np
import pytest

from collagan_dist.reproduce import paper, tables
from collagan_dist.reproduce.results import Results
from tests.reproduce.evaluated import MANIFEST, random_counts, run_of, write, write_dice, write_points


def test_rows_by_sample_give_the_tasks_own_dice(tmp_path):
    run = run_of(tmp_path, "M_s")
    write_dice(run, random_counts(np.random.default_rng(3), 60, 0.7))
    results = Results([run], MANIFEST)
    row = tables.make_table(2, results)["cells"]["M_s"]
    parts = [cell["ours"] for name, cell in row.items() if name != "average"]
    assert row["average"]["ours"] == pytest.approx(np.mean(parts)) and 60 < row["average"]["ours"] < 80
    for column in paper.columns(2):  # the rows by sample give the number and the error that the JSON has
        (estimate,) = results.seeds("M_s", results.score(2, column)).values()
        assert estimate.value == pytest.approx(row[column]["ours"])
        assert estimate.se == pytest.approx(row[column]["se"], rel=0.08)  # of 1,000 resampled test sets


def test_an_evaluation_of_another_data_set_does_not_count(tmp_path):
    run, score = run_of(tmp_path, "M_d"), paper.score(3, "nose", "", "numbers")
    write_points(run, np.ones((4, 5)))
    found = [Results([run], manifest).values("M_d", score) for manifest in (MANIFEST, "another")]
    assert found == [[1.0], []]


def test_baselines_are_those_of_the_usual_picture_size(printed, tmp_path):
    assert "baselines" not in tables.make_table(1, Results(printed, MANIFEST))
    runs = [run_of(tmp_path, "SII", data={"image_size": 64}), run_of(tmp_path, "M_i"), run_of(tmp_path, "M_id")]
    for run, psnr in zip(runs, (40.0, 25.0, 25.0), strict=True):
        metrics = {"psnr": 27.0, "ssim": 0.9, "samples": 9, "baselines": {"biharmonic": {"psnr": psnr, "ssim": 0.88}}}
        write(run, "O2", False, metrics | {"baselines_subset": {"samples": 4}}, {"ids": np.arange(9)})
    table = tables.make_table(1, Results(runs, MANIFEST))
    assert table["baselines"] == {"biharmonic": {"O5": {"ssim": pytest.approx(88), "psnr": 25.0, "samples": 4}}}
