import os
import re
import shutil
import subprocess
import sys

import pytest

from collagan_dist.errors import ConfigError, DataError
from collagan_dist.report.page import write_report
from collagan_dist.report.vega import library
from tests.report.conftest import CODE
from tests.report.page_reader import Page


@pytest.mark.parametrize("name", ["comparison_page", "asha_page", "nsga2_page", "reproduction_page"])
def test_page_is_self_contained_and_well_formed(name, request):
    page: Page = request.getfixturevalue(name)
    links = [link for attribute in ("src", "href", "xlink:href", "srcset") for link in page.values(attribute)]
    assert all(link.startswith(("data:image/", "#")) for link in links) and "://" not in page.source.replace(
        library(), ""
    )
    assert "default-src 'none'" in page.source
    tags = [tag for tag, _ in page.tags]
    assert page.runnable_scripts() == 2 and "link" not in tags and "@import" not in page.source
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    clips = {value.removeprefix("url(#").removesuffix(")") for value in page.values("clip-path")}
    assert {link[1:] for link in links if link.startswith("#")} | clips <= set(ids)
    style, body = re.sub(r"<script>.*?</script>", "", page.source, flags=re.DOTALL).split("</style>", 1)
    stack = ["html", "head"]
    for closing, tag, empty in re.findall(r"<(/?)([a-zA-Z][\w:]*)[^>]*?(/?)>", body):
        if closing:
            assert stack.pop() == tag
        elif not empty and tag not in ("meta", "img", "wbr"):
            stack.append(tag)
    assert not stack
    assert name != "comparison_page" or page.text.count(CODE) > 5
    # Every colour has a light and a dark value.
    assert not re.findall(r'(?:fill|stroke|color)(?:: ?|=")#\w+', body)
    used = set(re.findall(r"var\((--[\w-]+)\)", body))
    assert all(f"{name}:" in part for part in style.split("prefers-color-scheme: dark") for name in used)


def test_target(run, tmp_path):
    bare = [tmp_path / name for name in ("a/one", "b/two")]
    for folder in bare:
        folder.mkdir(parents=True)
        shutil.copy(run / "config.yaml", folder)
    text = Page(write_report(bare[:1]).read_text()).text
    assert all(words in text for words in ("No steps yet.", "Not evaluated yet.", "No events."))
    assert (bare[0] / "report.html").is_file() and write_report(bare) == tmp_path / "report.html"
    assert write_report(bare, bare[1]) == bare[1] / "report.html"
    assert write_report(bare, tmp_path / "new/page.html") == tmp_path / "new/page.html"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file: cannot be used as a folder"):
        write_report(bare, tmp_path / "file/page.html")
    (bare[0] / "report.html").unlink()
    (bare[0] / "report.html").mkdir()
    with pytest.raises(DataError, match="cannot be written there"):
        write_report(bare[:1])


def test_only_a_page_of_ours_is_replaced(run, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(run / "config.yaml", bare)
    page = write_report([bare], tmp_path / "page.html")
    assert write_report([bare], page) == page
    (tmp_path / "empty").touch()
    assert "collagan report" in write_report([bare], tmp_path / "empty").read_text()
    os.mkfifo(tmp_path / "pipe")
    for name, content in (("foreign.html", "<html><title>report</title>"), ("notes", "x"), ("pipe", None)):
        if content is not None:
            (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=f"{name}: is there and was not written by `collagan report`"):
            write_report([bare], tmp_path / name)
        assert content is None or (tmp_path / name).read_text() == content


def test_folders_that_cannot_be_shown(run, asha, reproduction, tmp_path):
    for paths, message in (
        ([], "No run folder was named"),
        ([tmp_path / "nowhere"], "nowhere: there is no such folder"),
        ([run.parent], r"no config\.yaml in it.*demo"),
        ([asha.out, run], "is a sweep, which has a page of its own"),
        ([run, reproduction], "is a reproduction, which has a page of its own"),
    ):
        with pytest.raises(DataError, match=message):
            write_report(paths)


def test_torch_is_never_imported(run, nsga2, reproduction, tmp_path):
    code = (
        "import sys; from pathlib import Path; from collagan_dist.report.page import write_report as write;"
        "heavy = {'vl_convert', 'numpy', 'PIL', 'jinja2'} & set(sys.modules); assert not heavy, heavy;"
        "[write([Path(folder)], Path(sys.argv[1], f'{n}.html')) for n, folder in enumerate(sys.argv[2:])];"
        "assert 'torch' not in sys.modules and 'vl_convert' in sys.modules"
    )
    for source, name in ((run, "config.yaml"), (nsga2.out, "sweep.json"), (nsga2.out, "trials.csv")):
        (tmp_path / source.name).mkdir(exist_ok=True)
        shutil.copy(source / name, tmp_path / source.name)
    folders = [tmp_path, tmp_path / run.name, tmp_path / nsga2.out.name, reproduction]
    subprocess.run([sys.executable, "-c", code, *map(str, folders)], check=True, timeout=120)
    assert len(list(tmp_path.glob("*.html"))) == 3
