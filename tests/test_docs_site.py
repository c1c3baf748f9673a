"""The documentation site: it builds without a warning, its links lead somewhere, and nothing on it comes from another host."""

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from docs.site_pages import links, site_files
from tests.conftest import ROOT

BLOCKS = {"li", "table", "pre", "blockquote", "h1", "h2", "h3"}


class Page(HTMLParser):
    """What a page of the site has: the ids of its elements, its links, what it loads, and how often each kind of block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.blocks: Counter[str] = Counter()
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {found["id"]} if found.get("id") else set()
        self.inside |= tag == "article"
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        elif tag == "link" and found.get("rel") != "canonical":
            self.loaded.append(str(found["href"]))
        elif found.get("src"):
            self.loaded.append(str(found["src"]))
        if self.inside and tag in BLOCKS:
            self.blocks[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self.inside &= tag != "article"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        out,
    ]  # with --quiet it counts no warning
    # mkdocs imports hooks by itself; a folder of compiled code in docs/ would be one of the repository.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}


def test_every_link_and_anchor_leads_somewhere(site, pages):
    assert len(pages) > 20
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the root of a server
            continue
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and target.is_relative_to(site), f"{path.relative_to(site)}: {link}"
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in pages[target].ids, f"{path.relative_to(site)}: {link}"


def test_nothing_is_loaded_from_another_host(site, pages):
    for path, page in pages.items():
        assert not [link for link in page.loaded if urlsplit(link).scheme or link.startswith("//")], path
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)[\"']?(https?:)?//", style.read_text()), style


def test_pages_have_the_blocks_that_github_shows(site, pages):
    """By another reader of Markdown: a list or a table that one of them takes for a paragraph is missing in its counts."""
    for source in site_files(ROOT):
        if source.endswith(".md"):
            text = (ROOT / source).read_text()
            expected = Page(f"<article>{MarkdownIt('commonmark').enable('table').render(text)}</article>").blocks
            page = source.replace("README.md", "index.html").replace(".md", ".html")
            assert pages[site / page].blocks == expected, source


def test_all_documentation_is_on_the_site():
    found = site_files(ROOT)
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md")} <= set(found)
    assert {"README.md", "CHANGELOG.md", "cluster/sweep.yaml", "docs/python.ipynb"} <= set(found)


def test_links_of_a_page():
    text = (
        "[a](b.md#c) `[x](y)` ![p](q.png)\n\n    [code](no)\n\n```\n[code](no)\n```\n[w](https://example.org) [s](#t)\n"
    )
    assert links(text) == ["b.md#c", "q.png", "#t"]
