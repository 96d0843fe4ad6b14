"""The documentation site is built, with every link between its pages leading somewhere (mkdocs.yml)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("material")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_from_outside_docs_are_there(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "make demo" in index
    # a link between two pages, and one to a file that is no page
    assert 'href="serving.html"' in index
    assert "LICENSE" in index and 'href="LICENSE' not in index
    assert (site / "architecture.html").exists() and (site / "contributing.html").exists()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"""<(?:script|img)[^>]*src=["']([^"']+)|<link[^>]*stylesheet[^>]*href=["']([^"']+)""", text
        )
        assert not [a or b for a, b in loaded if (a or b).startswith(("http", "//"))], page.name


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    """The hook, on a page that links to what is not there."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import docs_site
    finally:
        sys.path.pop(0)

    class Files:
        def get_file_from_path(self, path: str) -> object | None:
            return path if path == "python.md" else None

    class Page:
        class file:
            src_uri = "index.md"

    warned: list[str] = []
    docs_site.log.addFilter(lambda record: warned.append(record.getMessage()))  # type: ignore[arg-type,func-returns-value]
    text = (
        "[a](docs/python.md#x) [b](LICENSE) [c](docs/none.md) [d](https://example.org)\n```\n[e](none)\n```\n"
    )
    made = docs_site.on_page_markdown(text, Page(), None, Files())
    assert made.startswith("[a](python.md#x) b (`LICENSE`) c (`docs/none.md`) [d](https://example.org)")
    assert "[e](none)" in made
    assert warned == ["README.md: a link leads to docs/none.md, which is not in the repository"]
