"""The HTML file: it needs no other file and no network, runs no code, and is written completely or not at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collagan_dist.errors import DataError
from collagan_dist.report.page import write_report
from tests.report.page_reader import Page, read_report
from tests.report.simulated_sweep import SimulatedSweep

EVIL = '<script>alert("1")</script>'


@pytest.fixture(params=["comparison_page", "asha_page", "nsga2_page", "reproduction_page"])
def any_page(request: pytest.FixtureRequest) -> Page:
    page: Page = request.getfixturevalue(request.param)
    return page


def test_page_is_self_contained_and_well_formed(any_page: Page) -> None:
    links = [link for name in ("src", "href", "xlink:href", "srcset") for link in any_page.values(name)]
    assert all(link.startswith(("data:image/", "#")) for link in links)
    assert not {"script", "link"} & {tag for tag, _ in any_page.tags}
    assert "@import" not in any_page.source and "http" not in any_page.source
    ids = any_page.values("id")
    assert len(ids) == len(set(ids))
    targets = [link[1:] for link in links if link.startswith("#")]
    targets += [value.removeprefix("url(#").removesuffix(")") for value in any_page.values("clip-path")]
    assert set(targets) <= set(ids)
    body = re.sub(r"<!doctype.*?>|<style>.*?</style>", "", any_page.source, flags=re.DOTALL)
    stack: list[str] = []
    for closing, tag, empty in re.findall(r"<(/?)([a-zA-Z][\w:]*)[^>]*?(/?)>", body):
        if closing:
            assert stack.pop() == tag
        elif not empty and tag not in ("meta", "img", "wbr"):
            stack.append(tag)
    assert not stack


def test_every_colour_has_a_light_and_a_dark_value(any_page: Page) -> None:
    style, body = any_page.source.split("</style>", 1)
    assert not re.findall(r"(?:fill|stroke|color): ?#\w+", body)
    light, dark = style.split("prefers-color-scheme: dark")
    used = set(re.findall(r"var\((--[\w-]+)\)", body))
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)


def test_names_and_settings_of_a_run_cannot_run_code(altered: Callable[..., Path]) -> None:
    path = altered(
        "<script>alert(2)<",
        rows=[{"kind": "event", "event": EVIL, "step": 12, EVIL: EVIL}, {"kind": "train", "step": 12, "loss/a/b": 1, f"loss/{EVIL}/rec": 1.0}],
        hole=EVIL, dice={EVIL: 0.5, "$x_{$": 0.4}, baselines={EVIL: {"psnr": 20.0}},
    )  # fmt: skip
    (path / "grids/columns.json").write_text(json.dumps([EVIL]))
    (path / "world.json").write_text(json.dumps({EVIL: {EVIL: EVIL}}))
    page = read_report(path)
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(EVIL) > 5


def test_names_and_settings_of_a_sweep_cannot_run_code(asha: SimulatedSweep, tmp_path: Path) -> None:
    path = Path(shutil.copytree(asha.out, tmp_path / "<script>alert(2)<"))
    for name in ("sweep.json", "trials.csv"):
        text = (path / name).read_text().replace("per_task", "<script>x</script>").replace("search", "<script>y")
        (path / name).write_text(text)
    page = read_report(path)
    assert "script" not in {tag for tag, _ in page.tags} and "<script>x</script>" in page.text


def test_target(run: Path, tmp_path: Path) -> None:
    bare = [tmp_path / name for name in ("a/one", "b/two")]
    for folder in bare:
        folder.mkdir(parents=True)
        shutil.copy(run / "config.yaml", folder)
    assert write_report(bare[:1]) == bare[0] / "report.html"
    assert write_report(bare) == tmp_path / "report.html"
    assert write_report(bare, bare[1]) == bare[1] / "report.html"
    assert write_report(bare, tmp_path / "new/page.html") == tmp_path / "new/page.html"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written there"):
        write_report(bare, tmp_path / "file/page.html")


def test_folders_that_cannot_be_shown(run: Path, asha: SimulatedSweep, reproduction: Path, tmp_path: Path) -> None:
    for paths, message in (
        ([], "No run folder was named"),
        ([tmp_path / "nowhere"], "nowhere: there is no such folder"),
        ([run.parent], r"no config\.yaml in it.*demo"),
        ([asha.out, run], "is a sweep, which has a page of its own"),
        ([run, reproduction], "is a reproduction, which has a page of its own"),
    ):
        with pytest.raises(DataError, match=message):
            write_report(paths)


def test_torch_is_never_imported(run: Path, asha: SimulatedSweep, reproduction: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from collagan_dist.report.page import write_report as write;"
        "heavy = {'matplotlib', 'numpy', 'PIL', 'jinja2'} & set(sys.modules); assert not heavy, heavy;"
        "[write([Path(folder)], Path(sys.argv[1], f'{n}.html')) for n, folder in enumerate(sys.argv[2:])];"
        "assert 'torch' not in sys.modules and 'matplotlib' in sys.modules"
    )
    folders = [str(folder) for folder in (tmp_path, run, asha.out, reproduction)]
    subprocess.run([sys.executable, "-c", code, *folders], check=True, timeout=120)
    assert len(list(tmp_path.glob("*.html"))) == 3
