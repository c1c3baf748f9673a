from collagan_dist.report import paper_tables


def test_cells():
    percent, decibels = {"paper": 90.5, "ours": 91.0, "se": 0.1}, {"paper": 26.7, "ours": 26.6, "se": 0.1}
    missing, control = {"paper": 27.0, "ours": None, "se": None}, {"paper": None, "ours": 26.6, "se": 0.1}
    assert (paper_tables.paper_number(control), paper_tables.difference(control)) == ("–", "–")
    assert not paper_tables.is_significant(control)
    assert [paper_tables.paper_number(cell) for cell in (percent, decibels)] == ["90.5", "26.70"]
    assert [paper_tables.our_number(cell) for cell in (percent, missing)] == ["91.00 ± 0.10", "–"]
    assert [paper_tables.difference(cell) for cell in (percent, decibels, missing)] == ["+0.50", "−0.10", "–"]
    assert [paper_tables.is_significant(cell) for cell in (percent, decibels, missing)] == [True, False, False]


def test_subtables():
    cell = {kind: {"paper": 1.0} for kind in ("ssim", "psnr", "ssim_blended", "psnr_blended")}
    found = paper_tables.subtables(1, {"cells": {"CE": {"O1": cell}}})
    assert [caption for caption, _ in found][:2] == ["SSIM (%), Poisson blended", "PSNR (dB), Poisson blended"]
    assert all(by_model == {"CE": {"O1": {"paper": 1.0}}} for _, by_model in found) and len(found) == 4
    table = {"columns": ["O1", "O2"], "baselines": {"biharmonic": {"O1": {"ssim": 90.0, "psnr": 25.0, "samples": 4}}}}
    caption, rows = paper_tables.baseline_tables(1, table)[1]
    assert caption == "Trivial predictors on the same samples, PSNR (dB), not blended, 4 samples"
    assert rows == {"biharmonic": ["25.00", "–"]}


def test_picture_sizes():
    assert (
        paper_tables.picture_sizes({"CE": 128, "SII": 64, "M_i": 128}) == "SII at 64x64 pixels, the others at 128x128"
    )
    assert paper_tables.picture_sizes({"CE": 128}) == paper_tables.picture_sizes({}) == ""
