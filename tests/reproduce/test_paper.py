import itertools

import pytest

from collagan_dist.config.models import CONTROLS
from collagan_dist.reproduce import paper
from collagan_dist.reproduce.claims import _KINDS
from collagan_dist.types import LANDMARKS, POSITIONS, SCORED_CLASSES


@pytest.mark.parametrize(("table", "digit"), [(2, 0.1), (3, 0.01)])
def test_averages_are_means_of_the_rows_above(table, digit):
    for model in paper.rows(table):
        *parts, average = (paper.printed(table, model, column) for column in paper.columns(table))
        assert abs(sum(parts) / len(parts) - average) <= 0.51 * digit, model


def test_what_the_text_quotes():
    assert paper.printed(3, "M_d", "average") == 2.38 and paper.printed(3, "M*_isd", "average") == 1.72
    assert round(100 * (1 - 1.72 / 2.38), 1) == 27.7
    assert paper.printed(1, "M*_isd", "O6", "psnr_blended") == 27.81 == paper.printed(1, "M*_isd", "O6", "psnr")


def test_shape():
    assert paper.columns(1) == POSITIONS and len(paper.rows(1)) == 8
    assert paper.columns(2) == (*SCORED_CLASSES, "average") and paper.rows(2) == ("M_s", "M_is", "M_isd", "M*_isd")
    assert paper.columns(3) == (*LANDMARKS, "average") and paper.rows(3) == ("M_d", "M_id", "M_isd", "M*_isd")
    for table in paper.TABLES:
        cells = itertools.product(paper.rows(table), paper.columns(table), paper.kinds(table))
        numbers = [paper.printed(table, *cell) for cell in cells]
        assert len(numbers) == {1: 8 * 6 * 4, 2: 40, 3: 24}[table] and min(numbers) > 1


def test_claims_are_about_models_of_their_table():
    for claim in paper.paper()["claims"]:
        models = {claim[key] for key in ("better", "worse", "model") if key in claim}
        assert claim["kind"] in _KINDS and models <= set(paper.rows(claim["table"])), claim
    pairs = [(c["better"], c["worse"]) for c in paper.paper()["claims"] if c["table"] == 1 and "better" in c]
    ours = [m for m in paper.rows(1) if m.startswith("M")]
    assert {(m, peer) for m in ours for peer in ("CE", "SII", "GFC")} <= set(pairs)
    assert {(m, "M_i") for m in ours[1:]} <= set(pairs)


def test_the_reading_by_numbers_is_the_one_that_boxes_can_have():
    """Squared errors add up: one eye and the other give both, and no eye has more than the half of the face around it."""
    errors = {}
    for column in POSITIONS:
        psnr = [paper.printed(1, model, column, "psnr") for model in paper.rows(1)]
        errors[column] = sum(10 ** (-one / 10) for one in psnr)
    names = {reading: {part: errors[c] for c, part in paper.parts(reading).items()} for reading in ("numbers", "words")}
    by_numbers, by_words = names["numbers"], names["words"]
    assert by_numbers["left eye"] + by_numbers["right eye"] == pytest.approx(by_numbers["both eyes"], rel=0.15)
    assert (
        by_numbers["left half"] > 2 * by_numbers["left eye"] and by_numbers["right half"] > 2 * by_numbers["right eye"]
    )
    assert by_words["left eye"] > 2 * by_words["left face"] and by_words["upper face"] < by_words["left eye"]
    for reading in ("numbers", "words"):
        positions = [paper.score(1, column, "psnr", reading).hole for column in POSITIONS]
        assert sorted(positions) == list(POSITIONS)
    assert paper.score(1, "O4", "psnr", "numbers").hole == "O1" == paper.score(1, "O1", "psnr", "words").hole


def test_controls_tell_scheme_and_collaboration_apart():
    """A comparison about the scheme differs in the star alone, one about collaboration in the tasks alone."""
    for entry in paper.paper()["controls"]:
        better, worse = entry["better"], entry["worse"]
        stars, tasks = (["*" in m for m in (better, worse)], [m.split("_")[1] for m in (better, worse)])
        # M_s and M_d have no hole, so no scheme.
        same_scheme = stars[0] == stars[1] or "i" not in tasks[1]
        assert entry["about"] == ("collaboration" if same_scheme and tasks[0] != tasks[1] else "scheme"), entry
        assert entry["kind"] in _KINDS and {better, worse} <= {
            *paper.rows(entry["table"]),
            *paper.controls(entry["table"]),
        }
    assert paper.controls(1) == CONTROLS and (paper.controls(2), paper.controls(3)) == (("M*_is",), ("M*_id",))


def test_the_paper_supports_its_own_claims():
    for claim in paper.paper()["claims"]:
        if claim["kind"] == "pair":
            for kind in paper.kinds(claim["table"]):
                columns = POSITIONS if claim["table"] == 1 else ("average",)
                better, worse = (
                    sum(paper.printed(claim["table"], claim[side], column, kind) for column in columns)
                    for side in ("better", "worse")
                )
                assert (better > worse) == paper.score(claim["table"], columns[0], kind, "numbers").higher_is_better, (
                    claim
                )
