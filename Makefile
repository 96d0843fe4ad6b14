# Everything lives in .venv: `make demo` puts the recogniser there, `make test` adds what training and tests need.
PYTHON ?= python3
V := .venv/bin/python
DEMO := examples/demo.opus
# where training and the demo leave what they make
OUT := out
PIP := $(V) -m pip install --disable-pip-version-check --quiet

.PHONY: help demo test check format docs docs-version pictures release clean

help:
	@echo "make demo    transcribe $(DEMO) live, with the built-in model"
	@echo "make test    run the tests (installs torch and the training side first)"
	@echo "make check   check format, style and types of the code"
	@echo "make format  format the code and sort its imports"
	@echo "make docs    build the documentation site into site/ and check its links"
	@echo "make docs-version put this version's site on the branch gh-pages, beside those of others (mike)"
	@echo "make release build wheel and sdist into dist/, try them in clean environments, write checksums"
	@echo "make pictures make docs/live.svg and docs/web-page.png from a real run (needs Chromium)"
	@echo "make clean   remove .venv and caches; $(OUT)/ stays"

demo: .venv/.runtime
	@echo "$(DEMO), as if it were spoken just now:"
	@$(V) -m speech_reallm transcribe $(DEMO) --live --out $(OUT)/
	@echo
	@echo "next: your own file    .venv/bin/reallm transcribe FILE"
	@echo "      the microphone   $(V) -m pip install -e '.[listen]' && .venv/bin/reallm listen"
	@echo "      a web page       $(V) -m pip install -e '.[serve]' && .venv/bin/reallm serve"

test: .venv/.dev
	$(V) -m pytest

check: .venv/.dev
	$(V) -m ruff format --check .
	$(V) -m ruff check .
	$(V) -m mypy

format: .venv/.dev
	$(V) -m ruff check --select I --fix --quiet .
	$(V) -m ruff format .

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(V) -m mkdocs build --strict

# a page of another version stays where it was; nothing is pushed
docs-version: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(V) -m mike deploy --update-aliases "$$($(V) -c 'import speech_reallm; print(speech_reallm.__version__)')" latest
	$(V) -m mike set-default latest

release: .venv/.dev
	$(V) scripts/release.py --out dist

pictures: .venv/.dev
	$(V) scripts/live_terminal.py
	$(V) scripts/web_page.py

.venv/.runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or later is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ echo "python3 has no venv module; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "installing the recogniser into .venv (once)"
	@$(PIP) --editable .
	@touch $@

.venv/.dev: .venv/.runtime requirements-test.txt
	@echo "installing what tests and training need into .venv (once; some minutes)"
	@$(PIP) --editable '.[dev]' --constraint requirements-test.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .hypothesis .ruff_cache .mypy_cache build dist site src/*.egg-info
	find src tests benchmarks examples recipes -name __pycache__ -type d -prune -exec rm -rf {} +
