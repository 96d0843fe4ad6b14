"""The files of the page: nothing from elsewhere, nothing inline, colours that can be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_server import WEB

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = None

HTML = (WEB / "index.html").read_text(encoding="utf-8")
PROGRAMS = (WEB / "programs.html").read_text(encoding="utf-8")
ROUTES = {"./", "health", "metrics", "v1/info", "v1/models"}
CSS = (WEB / "style.css").read_text(encoding="utf-8")
FILES = sorted(WEB.iterdir())


def test_all_that_is_referred_to_is_there() -> None:
    # what the server answers itself
    names = set(re.findall(r'(?:src|href)="([^"#]+)"', HTML + PROGRAMS)) - ROUTES
    for script in WEB.glob("*.js"):
        text = script.read_text(encoding="utf-8")
        names |= set(re.findall(r'(?:from |import\()"\./([^"]+)"', text))
        names |= set(re.findall(r'URL\("([^"]+\.js)"', text))
    assert {"main.js", "app.js", "overlay.js", "style.css", "worklet.js", "programs.html"} <= names
    assert names <= {file.name for file in FILES}
    # and nothing lies about unused
    assert {file.name for file in FILES} - names == {"index.html"}


@pytest.mark.parametrize("html", [HTML, PROGRAMS], ids=["index", "programs"])
def test_nothing_is_inline(html: str) -> None:
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    links = re.findall(r"(?:https?:)?//[\w.-]+\.\w+|url\(|@import", text)
    # in the examples stands the usual address of a server, until the script puts in that of this one
    assert set(links) <= {"http://www.w3.org", "http://127.0.0.1", "//127.0.0.1"}
    assert len(text.splitlines()) < 500


def test_ids_that_scripts_ask_for_exist() -> None:
    scripts = "".join(file.read_text(encoding="utf-8") for file in WEB.glob("*.js"))
    asked = set(re.findall(r'(?:\$|getElementById)\("([\w-]+)"\)', scripts))
    ids = re.findall(r'\bid="([\w-]+)"', HTML)
    assert asked and asked <= set(ids)
    assert len(ids) == len(set(ids))


def test_what_the_page_for_programs_names_is_in_the_reference() -> None:
    """Its messages and options are those of docs/websocket.md, which may have more."""
    reference = (WEB.parents[3] / "docs/websocket.md").read_text(encoding="utf-8")
    messages = re.findall(r"`(\w+)`", "".join(re.findall(r"^\*\*(`.*?)\*\*", reference, re.MULTILINE)))
    table = re.findall(r"<tr><td>(.*?)</td>", PROGRAMS.split("</table>")[0])
    named = re.findall(r"<code>(\w+)</code>", " ".join(table))
    assert {"ready", "partial", "final", "endpoint", "progress", "error"} <= set(named) <= set(messages)
    options = re.findall(r"^\| `(\w+)` \|", reference.split("## From the client")[0], re.MULTILINE)
    sentence = PROGRAMS.split("Options in the address:")[1].split(". From the")[0]
    named = re.findall(r"<code>(\w+)</code>", sentence)
    assert {"rate", "delay", "key"} <= set(named) <= set(options)


@pytest.mark.skipif(tomllib is None, reason="needs Python 3.11, to read TOML")
def test_the_wheel_carries_the_page() -> None:
    project = tomllib.loads((WEB.parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["speech_reallm"]
    package = WEB.parents[1]
    carried = {file for pattern in patterns for file in package.glob(pattern)}
    assert set(FILES) <= carried


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme: str) -> None:
    """At least 4.5 : 1 as WCAG asks, for the faintest words too."""
    roots = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", roots[theme == "dark"]))
    pairs = [("unsure", "page"), ("muted", "page"), ("muted", "card"), ("muted", "tint"), ("ink", "warn")]
    pairs += [
        ("accent", "card"),
        ("accent", "tint"),
        ("on-accent", "accent"),
        ("live", "card"),
        ("page", "ink"),
    ]
    for text, ground in pairs:
        light, dark = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)
