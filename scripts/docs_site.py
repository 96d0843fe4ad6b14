"""Hooks of the documentation site (mkdocs.yml).

The site is docs/ and some pages from elsewhere in the repository (PAGES). Links are written so that they work in the
repository; here those between pages of the site are rewritten, and those to other files of the repository become plain
text, after a check that the file is there. `mkdocs build --strict` fails on every link that leads nowhere.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = "docs/"
# page of the repository -> page of the site
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "recipes/README.md": "recipes.md",
    "recipes/interleaving/README.md": "recipe-interleaving.md",
    "recipes/librispeech-960/README.md": "recipe-librispeech-960.md",
    "src/speech_reallm/models/default/README.md": "model-card.md",
}
SOURCES = {site: repository for repository, site in PAGES.items()}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^][]|\[[^][]*\])*)\]\((?P<target>[^()\s]+)\)")
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)

log = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/."""
    for source, page in PAGES.items():
        path = ROOT / source
        if path.exists():
            text = FRONT_MATTER.sub("", path.read_text(encoding="utf-8"))
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrite the links of a page."""
    here = page.file.src_uri
    source = SOURCES.get(here, DOCS + here)

    def rewritten(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        site = PAGES.get(path, path.removeprefix(DOCS) if path.startswith(DOCS) else None)
        if site is not None and files.get_file_from_path(site) is not None:
            link = posixpath.relpath(site, posixpath.dirname(here) or ".")
            return f"{match['image']}[{match['text']}]({link}{'#' + anchor if anchor else ''})"
        if not os.path.exists(ROOT / path):
            log.warning("%s: a link leads to %s, which is not in the repository", source, path)
        text: str = match["text"]
        # in an image's place stands what it shows
        return text if path in text or match["image"] else f"{text} (`{path}`)"

    # code is left as it is: every second part lies between fences
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)
