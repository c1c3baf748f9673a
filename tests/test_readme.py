"""Every command that the documentation shows parses, names files that exist, and the tree it draws is the tree on disk."""

import re
import shlex
from pathlib import Path

import pytest

from collagan_dist.commands.main import COMMANDS, build_parser
from collagan_dist.config.load import load_config, preset_names
from collagan_dist.config.project_files import recipes, search_spaces
from collagan_dist.data.readers.recipe import load_recipe
from docs.site_pages import links
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])


def commands(page: Path) -> list[str]:
    """Lines of code blocks that start one of our commands."""
    lines = [line.strip() for line in page.read_text().splitlines() if line.startswith("    ")]
    return [line.split("  #")[0] for line in lines if re.match(r"(collagan [a-z]|torchrun |sbatch |make )", line)]


ALL = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{p}: {c}" for p, c in ALL])
def test_command(page, command):
    words = shlex.split(re.sub(r"\[\w+ options\]", "", command))
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    if words[0] == "sbatch":
        script = next(i for i, w in enumerate(words) if w.endswith(".sh"))
        assert (ROOT / words[script]).exists()
        words = ["collagan", Path(words[script]).stem, *words[script + 1 :]]
        if words[1:2] == ["train"] and words[2:3] and words[2].startswith("-"):  # without CONFIG
            words.insert(2, "stable")
    elif words[0] == "torchrun":
        words = ["collagan", *words[words.index("collagan_dist") + 1 :]]
    # `collagan pack` as a name, or with a placeholder
    if len(words) < 3 or words[1:3] in (["pack", "RECIPE"], ["sweep", "CONFIG"]) or "COMMAND" in words:
        assert words[1] in COMMANDS or "COMMAND" in words
        return
    if words[1] == "train" and words[2] == "CONFIG":
        words[2] = "demo"
    args = build_parser().parse_args(words[1:])
    if args.command == "train":
        assert args.config in preset_names() or args.config.endswith(".yaml")
    if args.command == "sweep":
        assert args.config in preset_names() and args.space in search_spaces()
    if args.command == "pack":
        assert args.recipe in recipes()


def test_mentioned_commands_exist():
    named = {name for page in PAGES for name in re.findall(r"`collagan ([a-z]+)", page.read_text())}
    assert {"train", "pack"} <= named <= set(COMMANDS) and len(ALL) > 15


def test_examples_of_help_parse():
    for name, module in COMMANDS.items():
        for line in module.EXAMPLE.splitlines():
            words = shlex.split(line)
            args = build_parser().parse_args(words[words.index(name) :])
            assert args.command == name


def test_the_tree_is_the_tree_on_disk():
    block = (ROOT / "README.md").read_text().split("## Where things are")[1].split("## ")[0]
    for line in block.splitlines():
        if line.startswith("    ") and line.strip():
            inside = line.startswith("      ")
            for word in re.split(r"  +", line.strip())[0].split():
                assert ((ROOT / "collagan_dist" if inside else ROOT) / word).exists(), word


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w -]", "", heading).strip().replace(" ", "-") for heading in plain}


def test_links_lead_to_files_and_headings():
    """On disk, as GitHub shows them; tests/test_docs_site.py follows those of the site."""
    for page in PAGES:
        for link in links(page.read_text()):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.relative_to(ROOT)}: {link}"


def test_recipes_and_presets_load():
    for recipe in (ROOT / "shards").glob("*.yaml"):
        assert load_recipe(str(recipe)).out.startswith("packed/")
    for name in preset_names():
        load_config(name)


def test_every_fault_names_tests_that_exist():
    names = re.findall(r"`(tests/[^`]+)::(test_\w+)`", (ROOT / "docs/faults.md").read_text())
    assert len(names) > 20
    for file, name in names:
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
