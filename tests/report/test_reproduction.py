import json
import shutil
from pathlib import Path

import pytest

from collagan_dist.errors import DataError
from collagan_dist.report.heat_maps import FULL_MODEL
from collagan_dist.report.page import write_report
from collagan_dist.report.reproduction import is_reproduction
from tests.report.page_reader import read_report


def test_claims(reproduction_page, reproduction, run):
    assert is_reproduction(reproduction) and not is_reproduction(run)
    found = json.loads((reproduction / "claims.json").read_text())
    assert found["claims"] and found["controls"]
    for claim in (*found["claims"], *found["controls"]):
        row = [claim["claim"], claim["verdict"], claim["about"], claim["paper"] or "–", claim["ours"] or "–"]
        assert row in [[cell.strip() for cell in one] for one in reproduction_page.rows]
    holding = [claim["verdict"] for claim in found["claims"]].count("holds")
    assert f"Claims of the paper: {holding} hold" in reproduction_page.text
    assert found["note"] in reproduction_page.text
    chips = [name for name in reproduction_page.values("class") if name.startswith("chip ")]
    # One in the summary, one in the key of the plots, and one for each claim.
    assert chips.count("chip holds") == 2 + sum(c["verdict"] == "holds" for c in (*found["claims"], *found["controls"]))


def test_contents_lead_to_every_section(reproduction_page):
    links = [link for link in reproduction_page.values("href") if link.startswith("#")]
    assert links == ["#differences", "#figures", "#claims", "#table1", "#table3"]  # figures before tables
    assert {link[1:] for link in links} <= set(reproduction_page.values("id"))


def test_charts(reproduction_page):
    titles = [chart.title for chart in reproduction_page.charts()]
    assert titles.count("Table 1: PSNR, blended") == titles.count("PSNR (dB), Poisson blended") == 1
    assert len(titles) == 4 + 4  # the full model has no landmarks here, so Table 3 has no heat map


def test_tables_and_figures(reproduction_page, reproduction):
    first, third = (json.loads((reproduction / f"table{number}.json").read_text()) for number in (1, 3))
    kinds = ("ssim_blended", "psnr_blended", "ssim", "psnr")
    for model in first["rows"]:
        shown = [row[1:] for row in reproduction_page.rows if row[0] == model]
        assert ["Model", *(f"{column} {part}" for column, part in first["parts"].items())] in reproduction_page.rows
        for kind, cells in zip(kinds, shown, strict=True):
            numbers = [first["cells"][model][column][kind] for column in first["columns"]]
            assert [cell.split()[0] for cell in cells] == [f"{number['ours']:.2f}" for number in numbers]
            assert [float(cell.split("paper\xa0")[1].split(",")[0]) for cell in cells] == [n["paper"] for n in numbers]
    nose = third["cells"]["M_id"]["nose"]
    row = dict(zip(third["rows"], reproduction_page.row("Nose")[1:], strict=True))
    assert row["M_d"].startswith("– paper") and row["M_id"].startswith(
        f"{nose['ours']:.2f} ± {nose['se']:.2f} paper\xa0"
    )
    significant = abs(nose["ours"] - nose["paper"]) > 1.96 * nose["se"]
    assert row["M_id"].endswith(f"sd\xa0{nose['sd']:.2f}") and ("≠" in row["M_id"]) == significant
    controls = json.loads((reproduction / "controls.json").read_text())
    shown = next(row[1:] for row in reproduction_page.rows if row[0] == "M*_i")
    numbers = [controls["cells"]["M*_i"][column]["ssim_blended"]["ours"] for column in controls["columns"]]
    assert [float(cell.split()[0]) for cell in shown] == [round(number, 2) for number in numbers]
    assert "Figure 4: Completion by models with different tasks." in reproduction_page.text
    assert "Figure 5" not in reproduction_page.text and len(reproduction_page.pictures()) == 1


def test_heat_maps_are_explained_once_where_the_first_are(reproduction, tmp_path):
    """Table 1 without numbers of the full model, so that Table 3 has the first heat map."""
    first, third = (json.loads((reproduction / f"table{number}.json").read_text()) for number in (1, 3))
    for cell in (number for numbers in first["cells"][FULL_MODEL].values() for number in numbers.values()):
        cell["ours"] = None
    third["cells"][FULL_MODEL] = third["cells"]["M_id"]
    for number, table in ((1, first), (3, third)):
        (tmp_path / f"table{number}.json").write_text(json.dumps(table))
    page = read_report(tmp_path)
    assert page.text.count("standard errors of the difference; within 1") == 1
    assert page.text.count(f"Difference to {FULL_MODEL}") == 1


def test_tables_without_claims(reproduction, tmp_path):
    """As results are kept in a repository: tables and pictures, without the numbers of every sample."""
    folder = Path(
        shutil.copytree(reproduction, tmp_path / "kept", ignore=shutil.ignore_patterns("runs", "claims.json"))
    )
    assert is_reproduction(folder)
    page = read_report(folder)
    assert any(row[0] == "M_isd" for row in page.rows) and len(page.pictures()) == 1
    assert "has no claims.json" in page.text and page.values("href") == ["#figures", "#table1", "#table3"]
    assert json.loads((folder / "table1.json").read_text())["about"] in page.text


def test_damaged_files(reproduction, tmp_path):
    folder = Path(shutil.copytree(reproduction, tmp_path / "again", ignore=shutil.ignore_patterns("runs")))
    (folder / "figure4.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"figure4\.png: cannot be shown"):
        write_report([folder])
    (folder / "figure4.png").unlink()
    (folder / "table3.json").write_text("{}")
    with pytest.raises(DataError, match="run `collagan reproduce` again"):
        write_report([folder])
