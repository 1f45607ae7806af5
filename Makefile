# make bench   set up, export every format from the shipped checkpoint, benchmark, print the table
# make test    set up and run everything CI runs
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off

.PHONY: help install bench export test lint clean

help:
	@sed -n 's/^# //p' $(MAKEFILE_LIST)

install: .venv/.installed

bench: install
	@$(BIN)/asterisk-bench --runtime all

export: install
	@$(BIN)/asterisk-export --format all

test: .venv/.tox
	@echo "tox makes environments with engines and PyTorch: once, a few minutes"
	@$(BIN)/tox run --skip-missing-interpreters false

lint: .venv/.tox
	@$(BIN)/tox run -e lint

clean:
	rm -rf .venv .tox artifacts bench-results build

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.11" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "installing engines, converters and PyTorch into .venv (once, a few minutes)"
	@$(PIP) --editable '.[bench]'
	@touch $@

.venv/.tox: tox.ini | $(BIN)/python
	@$(PIP) tox==4.58.0
	@touch $@
