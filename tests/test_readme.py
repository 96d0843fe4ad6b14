"""What the pages say is so: commands parse, files are there, the README's program runs."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from speech_reallm.cli import main as cli
from speech_reallm.errors import UserError
from speech_reallm.modelfolder import find_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("docs/training.md", "docs/serving.md", "docs/figures.md")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """The commands of all pages that people read first, less the settings of variables before them."""
    pages = [ROOT / page for page in ("README.md", "CONTRIBUTING.md", *PAGES)]
    lines = [line for page in pages for block in blocks(page.read_text(encoding="utf-8"), "console")
             for line in block.splitlines()]  # fmt: skip
    assert all(line.startswith("$ ") for line in lines)
    return sorted({re.sub(r"^(\w+=\S+ )*", "", line[2:]) for line in lines})


def listed(page: str) -> set[str]:
    """The files and folders of the tree on a page, as paths from the root."""
    paths, parents = set(), [""]
    for line in next(b for b in blocks(page, "text") if "src/speech_reallm/" in b).splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        # names stand before the first run of spaces; several may share a line
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            paths.add(parents[depth] + name)
            if name.endswith("/"):
                parents[depth + 1 :] = [parents[depth] + name]
    return paths


@pytest.mark.parametrize("command", commands())
def test_command(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        if not shutil.which("make"):
            pytest.skip("make is not installed")
        dry = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    elif program in ("reallm", ".venv/bin/reallm"):
        assert arguments[0] == cli._parser().parse_args(arguments).verb.NAME
    elif program == "python":
        assert (ROOT / arguments[0]).is_file()
    elif program == "sbatch":
        assert any(argument.endswith(".sbatch") and (ROOT / argument).is_file() for argument in arguments)
    elif program == "podman":
        assert (ROOT / "Containerfile").is_file()
    elif program.endswith("pip"):
        extras = [extra for group in re.findall(r"\[([\w,]+)\]", arguments[-1]) for extra in group.split(",")]
        declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert all(re.search(rf"^{extra} = \[", declared, re.MULTILINE) for extra in extras)
    else:
        assert shutil.which(ROOT / program), f"{program} is no program of this project"
    for argument in arguments:
        if argument.startswith("recipes/"):
            assert (ROOT / argument).is_file()


def test_the_program_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = blocks(README, "python")
    code = compile(program, "README.md", "exec")
    try:
        find_model(None)
    except UserError as err:
        pytest.skip(str(err))
    monkeypatch.chdir(ROOT)
    exec(code, {})
    first, *lines, last = capsys.readouterr().out.splitlines()
    # the text of the file, the same words as they came (a recording is recognised with more right context, and may have
    # other punctuation), the last word
    spoken, shown = ([w.strip(".,?!").lower() for w in text.split()] for text in (first, " ".join(lines)))
    assert len(spoken) > 50 and shown == spoken and last.startswith("Word(word=")


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=["README", "ARCHITECTURE"])
def test_the_tree_is_true(page: str) -> None:
    missing = {path for path in listed(page) if not (ROOT / path).exists()}
    # that there is a default model, another test demands
    assert missing <= {"src/speech_reallm/models/default/"}


def test_every_folder_has_its_line_in_the_tree_and_every_module_says_what_it_is_for() -> None:
    modules = [p for p in (ROOT / "src/speech_reallm").rglob("*.py") if p.stat().st_size]
    folders = {f"{p.parent.relative_to(ROOT).as_posix()}/" for p in modules}
    assert folders <= listed(ARCHITECTURE)
    assert [p for p in modules if not ast.get_docstring(ast.parse(p.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=["README", "ARCHITECTURE"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page):
        assert target.startswith("https://") or (ROOT / target).exists(), target
