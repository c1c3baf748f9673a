import json

import pytest

from collagan_dist.report.claims import Claim, forest_plots, read_claims
from collagan_dist.report.formatting import format_p


@pytest.fixture(scope="session")
def plots(reproduction):
    found = read_claims(reproduction)
    return {plot.title: plot for plot in forest_plots((*found.claims, *found.controls))}


def test_a_plot_for_each_table_and_metric(plots):
    """Table 1 is scored, of Table 3 one model alone, so that nothing is compared."""
    assert list(plots) == [f"Table 1: {metric}, {which}" for which in ("blended", "other methods") for metric in ("SSIM", "PSNR")]  # fmt: skip


def test_rows_are_the_claims_with_their_numbers(plots, reproduction):
    content = json.loads((reproduction / "claims.json").read_text())
    claims = [c for c in (*content["claims"], *content["controls"]) if c["table"] == 1 and c.get("p") is not None]
    drawn = [row for plot in plots.values() for row in plot.spec["data"]["values"]]
    assert len(drawn) == 2 * len(claims) > 30
    for claim in claims:
        ssim, psnr = (one for one in drawn if one["Claim"] == claim["claim"])
        assert (ssim["unit"], psnr["unit"]) == ("%", "dB") and psnr["verdict"] == claim["verdict"]
        detail = next(d for d in claim["details"] if d["metric"] == "psnr" and d["blended"])
        numbers = [detail["ours"], *detail["interval"], detail["paper"]]
        assert [psnr[key] for key in ("difference", "low", "high", "theirs")] == numbers
        assert psnr["p (Holm)"] == format_p(claim["p_holm"])
        assert psnr["row"] == f"{claim['better']} − {claim['worse']}"
        assert psnr["Here"] == f"{detail['ours']:+.2f} dB".replace("-", "−")
        assert (psnr["Paper"] == "–") == (claim in content["controls"])


def test_lines_stand_under_what_they_are_about(plots):
    lines = plots["Table 1: PSNR, blended"].spec["encoding"]["y"]["scale"]["domain"]
    heads = [lines.index(head) for head in ("Collaboration", "Scheme", "Both")]
    assert heads == sorted(heads) and heads[0] == 0 and lines[-1] == "M*_isd − M_i"
    assert lines.index("M*_isd − M_isd") > heads[1] > lines.index("M_isd − M_i")
    assert "Other methods" not in plots["Table 1: PSNR, other methods"].spec["encoding"]["y"]["scale"]["domain"]


def test_the_svg_shows_points_intervals_and_the_papers_numbers(plots):
    plot = plots["Table 1: PSNR, blended"]
    rows = plot.spec["data"]["values"]
    colours = {"holds": "--s0", "does not": "--s1", "undecided": "--s7"}
    for verdict, colour in colours.items():
        # An interval and a point each.
        assert plot.svg.count(f'stroke="var({colour})"') == 2 * sum(row["verdict"] == verdict for row in rows)
    theirs = sum(row["theirs"] is not None for row in rows)
    assert plot.svg.count('fill="var(--ink)"') == theirs > 0 and len(rows) > theirs


def test_a_relative_change_and_a_claim_that_is_not_scored_have_no_plot():
    detail = {"metric": "landmark_error", "unit": "px", "ours": -0.2, "interval": (-0.3, -0.1), "paper": -0.3}
    claim = {"claim": "a", "table": 3, "verdict": "holds", "paper": "", "ours": "", "better": "M*_isd", "worse": "M_d"}
    assert [plot.title for plot in forest_plots([Claim(**claim, details=(detail,))])] == ["Table 3: Landmark error"]
    assert forest_plots([Claim(**claim, details=(detail | {"unit": "%", "change": "falls"},))]) == []
    assert forest_plots([Claim(**claim | {"verdict": "not scored"}, details=(detail,))]) == []


def test_claims_without_numbers_have_no_plot(tmp_path):
    old = {"claim": "a", "table": 3, "verdict": "holds", "paper": "", "ours": None}
    details = [{"ours": -0.2, "interval": [-0.3, -0.1], "paper": -0.277, "change": "falls"}]
    assert forest_plots([Claim(**old), Claim.model_validate_json(json.dumps({**old, "details": details}))]) == []
    assert read_claims(tmp_path).claims == ()
