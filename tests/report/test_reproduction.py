"""The page of a reproduction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from read_page import Page

from collagan_dist.errors import DataError
from collagan_dist.report.page import write_report


def table1() -> dict[str, Any]:
    cell = {"paper": 90.5, "ours": 91.0, "se": 0.1}
    decibels = {"paper": 26.7, "ours": 26.75, "se": 0.1, "seeds": [26.7, 26.8], "sd": 0.0707}
    missing = {"paper": 27.0, "ours": None, "se": None}
    kinds = {"ssim_blended": cell, "psnr_blended": decibels, "ssim": cell, "psnr": missing}
    return {
        "rows": ["CE", "M*_isd"],
        "columns": ["O1", "O2"],
        "cells": {m: dict.fromkeys(("O1", "O2"), kinds) for m in ("CE", "M*_isd")},
    }


def table3() -> dict[str, Any]:
    row = {"nose": {"paper": 2.5, "ours": 2.0, "se": 0.2}, "average": {"paper": 2.38, "ours": 2.1, "se": 0.3}}
    return {"rows": ["M_d", "M_id"], "columns": ["nose", "average"], "cells": {"M_d": row, "M_id": row}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    claim = {
        "table": 1,
        "claim": "M_id <beats> CE",
        "paper": "SSIM +1.0 %",
        "ours": "SSIM +0.5 ± 0.1 %***",
        "verdict": "holds",
    }
    lost = {"table": 3, "claim": "The error falls", "paper": "−27.7 %", "ours": None, "verdict": "not scored"}
    (tmp_path / "claims.json").write_text(json.dumps({"note": "One seed only: CE.", "claims": [claim, lost]}))
    (tmp_path / "table1.json").write_text(json.dumps(table1() | {"note": "SII at 64x64 pixels."}))
    (tmp_path / "table3.json").write_text(json.dumps(table3()))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(tmp_path / "figure4.png")
    return tmp_path


@pytest.fixture
def page(folder: Path) -> Page:
    assert write_report([folder]) == folder / "report.html"
    return Page((folder / "report.html").read_text())


def test_needs_nothing_but_itself(page: Page) -> None:
    links = page.values("src") + page.values("href")
    assert links and all(link.startswith(("data:image/", "#")) for link in links) and "http" not in page.source


def test_shows_claims_tables_and_figures(page: Page) -> None:
    assert "2 claims of the paper: 1 hold, 1 not scored." in page.text and "One seed only: CE." in page.text
    assert page.row("M_id <beats> CE") == ["M_id <beats> CE", "1", "holds", "SSIM +1.0 %", "SSIM +0.5 ± 0.1 %***"]
    assert page.row("The error falls")[4] == "–"
    tables = [row for row in page.rows if row[0] == "M*_isd"]
    assert [row[1] for row in tables] == [
        "91.00 ± 0.10 paper 90.5, +0.50 ≠", "26.75 ± 0.10 paper 26.70, +0.05, sd 0.07", "91.00 ± 0.10 paper 90.5, +0.50 ≠", "– paper 27.00",
    ]  # fmt: skip
    assert page.row("Nose")[1:] == ["2.00 ± 0.20 paper 2.50, −0.50 ≠"] * 2
    assert page.row("Average")[1:] == ["2.10 ± 0.30 paper 2.38, −0.28"] * 2
    assert page.text.count("SII at 64x64 pixels.") == 4
    assert "Figure 4: Completion by models with different tasks." in page.text and "Figure 5" not in page.text


def test_damaged_and_mixed(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Name it alone"):
        write_report([folder, tmp_path / "other"])
    (folder / "figure4.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"figure4.png: cannot be shown"):
        write_report([folder])
    (folder / "figure4.png").unlink()
    (folder / "table3.json").write_text("{}")
    with pytest.raises(DataError, match="run `collagan reproduce` again"):
        write_report([folder])
