"""The report as a reader of its HTML sees it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import make_run_folders as make
import pytest
from read_page import Page

from collagan_dist.errors import DataError
from collagan_dist.report.evaluation import parse_evaluation
from collagan_dist.report.page import write_report
from collagan_dist.runs.metrics_log import read_metrics_log


def report(*paths: Path) -> Page:
    return Page(write_report(paths).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.full_run(tmp_path_factory.mktemp("runs") / "demo", steps=400)


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return report(run)


def test_needs_nothing_but_itself(page: Page) -> None:
    links = page.values("src") + page.values("href") + page.values("xlink:href") + page.values("srcset")
    assert links and all(link.startswith(("data:image/", "#")) for link in links)
    assert "script" not in {tag for tag, _ in page.tags} and "link" not in {tag for tag, _ in page.tags}
    assert "@import" not in page.source and "http" not in page.source
    assert all(value.startswith("url(#") for value in page.values("clip-path"))


def test_ids_are_unique_and_every_reference_resolves(run: Path, tmp_path: Path) -> None:
    page = report(run, make.full_run(tmp_path / "other", steps=80))
    ids = page.values("id")
    assert len(ids) > 100 and len(ids) == len(set(ids))
    targets = [value[1:] for value in page.values("href") + page.values("xlink:href") if value.startswith("#")]
    targets += [value.removeprefix("url(#").removesuffix(")") for value in page.values("clip-path")]
    assert targets and set(targets) <= set(ids)


def test_every_number_of_metrics_json_is_shown(page: Page) -> None:
    numbers = make.evaluation()
    assert page.row("PSNR (dB)")[1].split()[0] == f"{numbers['psnr']:.2f}"
    assert page.row("PSNR, in the hole (dB)") == ["PSNR, in the hole (dB)", "21.47 ★ ± 0.08", "15.24", "18.99"]
    assert page.row("SSIM")[1:] == ["0.912 ★ ± 0.001", "0.853", "0.888"]
    assert page.row("SSIM, in the hole")[1].split()[0] == "0.703"
    for part in make.PARTS:
        cells = page.row(part.replace("_", " ").capitalize())
        shown = [cell.split()[0] for cell in cells[1:]]
        assert shown == [f"{numbers[key][part]:.3f}" for key in ("dice", "dice_per_image", "dice_hole")]
    table = [row for row in page.rows if len(row) == 4 and row[-1] in {"5.42", "5.72", "6.02", "6.32", "6.62"}]
    for cells, point in zip(table[:6], (*make.POINTS, "mean"), strict=True):
        assert cells[1].split()[0] == f"{numbers['landmark_error'][point]:.2f}" and "★" in cells[1]
        assert cells[2] == f"{numbers['landmark_error_hole'][point]:.2f}"


def test_says_how_the_run_compares(page: Page) -> None:
    assert "M*_isd (inpainting, segmentation, landmarks) · 400 of 2,000 steps, not finished" in page.text
    assert "Completed beats biharmonic by 2.48 dB inside the hole (21.47 ± 0.08 against 18.99 dB)" in page.text
    assert "landmark error 2.46 px on average (mean landmarks: 6.02 px)" in page.text


def test_says_so_when_a_baseline_is_better(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    (path / "metrics.json").write_text(json.dumps(make.evaluation(gain=-4)))
    page = report(path)
    assert "Completed is behind biharmonic by 1.52 dB inside the hole" in page.text
    assert "18.99" in page.best and "17.47" not in page.best


def test_shows_pictures_curves_settings_and_checkpoints(page: Page) -> None:
    pictures = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(pictures) == 8 and all(attrs["alt"] for attrs in pictures)
    assert "Columns from left to right: input, completed, truth" in pictures[0]["alt"]
    steps = [int(attrs["alt"].split("step ")[1].split(".")[0]) for attrs in pictures[1:7]]
    assert steps == sorted(steps) and steps[0] == 50 and steps[-1] == 350
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    for title in ("Reconstruction loss", "Adversarial loss of the generator", "Discriminator loss", "Total loss"):
        assert any(label.startswith(f"{title} over steps. Last values:") for label in labels)
    for title in ("Learning rate", "Pictures per second", "Share of time", "PSNR", "SSIM", "Dice", "Landmark error"):
        assert any(label.startswith(title) for label in labels)
    assert "undecided: ln 2" in page.text
    assert page.row("generator.lr")[1] == "0.0002"
    assert page.row("hosts")[1] == "node-a, node-b" and page.row("splits.train")[1] == "8000"
    assert page.row("400", 3) == ["400", "123.5 kB", "yes"]
    assert page.row("310") == ["310", "quarantine", "key: 000517; reason: damaged"]


def test_names_and_settings_cannot_run_code(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    path = make.bare_run(
        tmp_path / "<script>alert(2)<", make.config(("inpainting", evil)) | {"note": evil + '"><img src=x>'}
    )
    item = make.evaluation() | {"baselines": {evil: {"psnr": 20.0}}, "hole": evil, "dice": {evil: 0.5, "$x_{$": 0.4}}
    rows = [make.train_row(step, ("inpainting", evil)) for step in (10, 20)]
    rows += [{"kind": "eval", "step": 20} | item, {"kind": "event", "event": evil, "step": 20, evil: evil}]
    make.write_log(path / "metrics.jsonl", rows)
    (path / "metrics.json").write_text(json.dumps(item))
    make.grid(path / "grids" / "step-00000020.png")
    (path / "grids" / "columns.json").write_text(json.dumps([evil]))
    (path / "world.json").write_text(json.dumps({evil: {evil: evil}}))
    page = report(path)
    assert "script" not in {tag for tag, _ in page.tags} and len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert evil in page.text


def test_a_later_line_replaces_an_earlier_one_of_its_step(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    first = [make.train_row(step) | {"loss/total": 1.0} for step in (10, 20, 30, 40)]
    again = [make.train_row(step) | {"loss/total": 2.0} for step in (30, 40)]
    resume = {"kind": "event", "event": "resume", "step": 20}
    evals = [{"kind": "eval", "step": 40, "psnr": 11.0}, {"kind": "eval", "step": 40, "psnr": 22.0}]
    make.write_log(path / "metrics.jsonl", [*first, evals[0], resume, *again, evals[1]])
    log = read_metrics_log(path)
    assert [(row["step"], row["loss/total"]) for row in log.train] == [(10, 1.0), (20, 1.0), (30, 2.0), (40, 2.0)]
    assert [row["psnr"] for row in log.evals] == [22.0]
    assert "22.00" in report(path).text


def test_what_a_resumed_run_gave_up_is_gone(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    rows = [make.train_row(step) for step in (10, 20, 30, 40)]
    rows += [{"kind": "eval", "step": 40, "psnr": 11.0}, make.train_row(20)]
    make.write_log(path / "metrics.jsonl", rows)
    log = read_metrics_log(path)
    assert [row["step"] for row in log.train] == [10, 20] and not log.evals


def test_a_last_line_cut_short_is_said_not_fatal(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    make.write_log(path / "metrics.jsonl", [make.train_row(10), make.train_row(20)], tail='{"kind": "train", "st')
    page = report(path)
    assert "Line 3, the last of metrics.jsonl, is cut short" in page.text and "20 of 2,000 steps" in page.text


@pytest.mark.parametrize("bad", ['{"kind": "train", "st', "[1, 2]", '{"kind": "train", "loss/total": 1.0}'])
def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path, bad: str) -> None:
    path = make.bare_run(tmp_path / "run")
    good = json.dumps(make.train_row(10))
    (path / "metrics.jsonl").write_text(f"{good}\n{bad}\n{good}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: .*[Rr]emove"):
        write_report([path])
    assert not list(path.glob("*report*")) and not list(path.glob(".*"))


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_run_without_steps_says_so(tmp_path: Path, content: str | None) -> None:
    path = make.bare_run(tmp_path / "run")
    if content is not None:
        (path / "metrics.jsonl").write_text(content)
    assert "no steps yet" in report(path).text


def test_values_that_are_not_finite_are_left_out_and_said(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    make.write_log(path / "metrics.jsonl", [make.train_row(10) | {"loss/total": math.nan}, make.train_row(20)])
    assert "1 line(s) of metrics.jsonl hold NaN" in report(path).text


def test_flattened_eval_keys_read_like_nested_ones(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    flat = {"psnr": 27.125, "dice/face": 0.875, "dice.mean": 0.8125, "se/psnr": 0.25, "baselines/biharmonic/psnr": 20.0}
    make.write_log(path / "metrics.jsonl", [make.train_row(10), {"kind": "eval", "step": 10} | flat])
    page = report(path)
    assert page.row("PSNR (dB)") == ["PSNR (dB)", "27.12 ★ ± 0.25", "20.00"]
    assert page.row("Face")[1] == "0.875" and page.row("Average")[1] in ("0.812", "0.813")


def test_fixed_and_landmark_positions_are_two_results() -> None:
    raw = {"split": "test", "hole": "O1", "blend": "none", "psnr": 20.0}
    fixed, around = (parse_evaluation({**raw, "settings": {"positions": p}}) for p in ("fixed", "landmarks"))
    block = parse_evaluation({**raw, "hole": "block", "settings": {"positions": "fixed"}})
    assert fixed.subject != around.subject and "fixed" in fixed.name and "fixed" not in block.name
    assert set(fixed.values) == {"psnr"}


def test_a_task_nobody_knew_shows_up(tmp_path: Path) -> None:
    tasks = (*make.TASKS, "depth_map")
    path = make.bare_run(tmp_path / "run", make.config(tasks))
    extra = {"depth_error": 0.12345, "normals": {"cheek": 3.25, "mean": 3.5}}
    item = make.evaluation() | extra
    make.write_log(
        path / "metrics.jsonl", [make.train_row(s, tasks) for s in (10, 20)] + [{"kind": "eval", "step": 20} | item]
    )
    (path / "metrics.json").write_text(json.dumps(item))
    page = report(path)
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert any(label.startswith("Reconstruction loss") and "Depth map" in label for label in labels)
    assert page.row("Depth error")[1] == "0.1235" and page.row("Cheek")[1] == "3.25"
    assert "M*_isd+depth_map" in page.text


def test_several_runs_are_compared_and_the_best_is_marked(tmp_path: Path) -> None:
    good = make.full_run(tmp_path / "a" / "good", steps=80, gain=1.0)
    poor = make.full_run(tmp_path / "b" / "poor", steps=80, gain=-1.0)
    fresh = make.bare_run(tmp_path / "fresh")
    target = write_report([poor, good, fresh])
    assert target == tmp_path / "report.html"
    page = Page(target.read_text())
    header = next(row for row in page.rows if row[:1] == ["Run"])
    cells = {name: dict(zip(header, page.row(name, len(header)), strict=True)) for name in ("good", "poor", "fresh")}
    for column, best, other in (
        ("PSNR, in the hole (dB)", "22.47 ★ ± 0.08", "20.47 ± 0.08"),
        ("Landmark error (px)", "2.35 ★ ± 0.05", "2.56 ± 0.05"),
    ):
        assert (cells["good"][column], cells["poor"][column], cells["fresh"][column]) == (best, other, "–")
    assert page.row("optim.generator.lr")[1:] == ["0.0", "0.0004", "0.0002"]
    labels = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert any(label.startswith("Total loss") and "good" in label and "poor" in label for label in labels)
    assert page.values("href")[:3] == ["#r0", "#r1", "#r2"]


def test_a_path_that_is_no_run_is_an_error(tmp_path: Path, run: Path) -> None:
    with pytest.raises(DataError, match="nowhere: there is no such folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(DataError, match=r"no config\.yaml in it.*demo"):
        write_report([run.parent])
    (tmp_path / "config.yaml").write_text("model: [")
    with pytest.raises(DataError, match="not readable as YAML"):
        write_report([tmp_path])


def test_a_damaged_picture_is_said_not_fatal(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run")
    make.grid(path / "grids" / "step-00000010.png")
    whole = (path / "grids" / "step-00000010.png").read_bytes()
    (path / "grids" / "step-00000020.png").write_bytes(whole[: len(whole) // 2])
    page = report(path)
    assert "step-00000020.png cannot be shown" in page.text and "Step 10" in page.text


def test_planned_steps_from_epochs(tmp_path: Path) -> None:
    path = make.bare_run(tmp_path / "run", make.config(steps=None))
    (path / "data.json").write_text(json.dumps({"splits": {"train": 1001}}))
    assert "of 313 planned" in report(path).text  # ceil(20 * 1001 / 64)


def test_is_light_and_never_needs_torch(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import collagan_dist.report.page as r;"
        "assert not {'matplotlib', 'numpy', 'PIL', 'jinja2'} & set(sys.modules), 'import is heavy';"
        "r.write_report([Path(sys.argv[1])], Path(sys.argv[2]));"
        "assert 'torch' not in sys.modules and 'matplotlib' in sys.modules"
    )
    target = tmp_path / "new" / "page.html"
    subprocess.run([sys.executable, "-c", code, str(run), str(target)], check=True, timeout=60)
    assert target.is_file() and [path.name for path in target.parent.iterdir()] == ["page.html"]
