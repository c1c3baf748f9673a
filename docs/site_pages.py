"""Which files the documentation site has: a hook of mkdocs, which mkdocs.yml names.

The site has README.md and every file of the repository that links lead to from there. Each keeps its place, so a
link that is right in the repository is right on the site, and no page is written twice.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

START = "README.md"
# Code, in which a bracket before a parenthesis is no link.
_CODE = re.compile(r"^(```|~~~).*?^\1|^(?: {4}|\t).*?$|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    """Return the targets of a Markdown page's links and pictures, in their order; those to other hosts are left out."""
    found = re.findall(r"\]\(([^()\s]+)\)", _CODE.sub("", text))
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def site_files(root: Path) -> list[str]:
    """Return the repository paths of the site's files: START, and all that can be reached from it."""
    reached, waiting = [], [START]
    while waiting:
        path = waiting.pop()
        if path in reached or not (root / path).is_file():  # mkdocs itself names a link that leads nowhere
            continue
        reached.append(path)
        if path.endswith(".md"):
            targets = [target.partition("#")[0] for target in links((root / path).read_text())]
            waiting += [os.path.normpath(Path(path).parent / target) for target in targets if target]
    return sorted(reached)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace what mkdocs found in docs/ by `site_files` and the style; the theme's own files stay."""
    from mkdocs.structure.files import File

    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    root = Path(config.config_file_path).parent
    for path in [*site_files(root), *config.extra_css]:
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files
