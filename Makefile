# make bench   set up, export every format from the shipped checkpoint, benchmark, print the table
# make compare all-MiniLM-L6-v2 in every format beside every system of others that runs it: half an hour
# make demo    set up, index the texts that ship, search them, tell times and memory
# make check   lint, types, layers and the fast tests: before a commit, under two minutes
# make test    set up and run everything CI runs
# make studies our own studies of the engines and of the benchmark itself, a few minutes, into bench-results
# make data teacher train export eval   DATA=folder with train/ and eval/: from raw text to a measured model
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off

.PHONY: help install install-dev install-train bench compare demo data teacher train export eval check test lint studies clean

# Folders of raw text and of evaluation sets, laid out as docs/training-data.md and
# docs/evaluating.md say; what is made of them; and the model that comes out.
DATA ?= data
RUNS ?= runs
NAME ?= my-model
THREADS ?= 1
# Choose on dev; touch test once a candidate.
SPLIT ?= dev
# More options of a step: make train TRAIN_OPTIONS='--passes 100000'
DATA_OPTIONS ?=
TEACHER_OPTIONS ?=
TRAIN_OPTIONS ?=
EVAL_OPTIONS ?=

CODE := src tests examples benchmarks
# What shows in a minute whether a change broke something: no engine is started for these.
FAST := not slow and not campaign and not sshd and not qemu and not browser
FAST_TESTS := tests/common tests/tokenizer tests/model tests/runtimes tests/sources tests/cli tests/test_artifact.py tests/test_docs.py tests/test_imports.py tests/test_public_names.py

# Other Pythons than the one in use are tried where they are: on PATH, or where pyenv keeps them.
PYTHONS := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.1[123].*/bin/python)

# Each step needs the one before.
.NOTPARALLEL:

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(MAKEFILE_LIST)

install: .venv/.installed

install-train: .venv/.trained

bench: install
	@$(BIN)/asterisk-bench --runtime all

# The peers, which do not go with the rest, have an environment of their own.
compare: install .venv-peers/.installed
	@$(BIN)/asterisk-bench all-MiniLM-L6-v2 --runtime all,peers --processes 5 --timeout 600

demo: install
	@$(BIN)/asterisk-demo

data: install-train
	@$(BIN)/asterisk-data $(DATA)/train --evaluation $(DATA)/eval --out $(RUNS)/corpus $(DATA_OPTIONS)

teacher: install-train
	@$(BIN)/asterisk-teacher $(RUNS)/corpus --out $(RUNS)/targets --threads $(THREADS) $(TEACHER_OPTIONS)

train: install-train
	@$(BIN)/asterisk-train $(RUNS)/corpus $(RUNS)/targets --run $(RUNS)/$(NAME) --out checkpoints/$(NAME) $(TRAIN_OPTIONS)

# The newly trained model where there is one, else the shipped one.
MODEL = $(firstword $(wildcard checkpoints/$(NAME)) checkpoints/asterisk-256-wp)

export: install
	@$(BIN)/asterisk-export $(MODEL) --format all

eval: install-train
	@$(BIN)/asterisk-eval all-MiniLM-L6-v2 $(MODEL) tfidf --data $(DATA)/eval --split $(SPLIT) \
	  --teacher all-MiniLM-L6-v2 --out $(RUNS)/$(notdir $(MODEL))-eval.json $(EVAL_OPTIONS)

install-dev: .venv/.dev

check: .venv/.dev
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check --quiet $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "$(FAST)" $(FAST_TESTS)

test: .venv/.tox
	@echo "tox makes environments with engines and PyTorch: once, a few minutes"
	@$(BIN)/tox run --skip-missing-interpreters true $(if $(PYTHONS),--discover $(PYTHONS))

# Only measured alone are the times of these worth anything.
studies: install
	@$(BIN)/asterisk-export --format all
	@mkdir -p bench-results
	@$(BIN)/python -m benchmarks.anatomy --checkpoint $(MODEL) | tee bench-results/anatomy.md
	@$(BIN)/python -m benchmarks.cost --processes 1 | tee bench-results/cost.md
	@$(BIN)/python -m benchmarks.budget artifacts/$(notdir $(MODEL))-tflite-int8 | tee bench-results/budget.txt
	@$(BIN)/python -m benchmarks.pareto bench-results/pareto.md --runtime onnx,tflite --processes 1

lint: .venv/.tox
	@$(BIN)/tox run -e lint

clean:
	rm -rf .venv .venv-peers .tox artifacts bench-results build

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than Python 3.11; name another: make PYTHON=python3.11" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "$(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "installing engines, converters and PyTorch into .venv (once, a few minutes)"
	@$(PIP) --editable '.[bench,deploy]'
	@touch $@

.venv-peers/.installed: pyproject.toml | $(BIN)/python
	@echo "installing the systems of others into .venv-peers (once, a few minutes)"
	@$(BIN)/python -m venv .venv-peers
	@.venv-peers/bin/python -m pip --disable-pip-version-check install --progress-bar off --editable '.[peers]'
	@touch $@

.venv/.dev: pyproject.toml | $(BIN)/python
	@echo "installing what tests and lint need into .venv (once, a few minutes)"
	@$(PIP) --editable '.[test,lint]'
	@touch $@

.venv/.trained: pyproject.toml | $(BIN)/python
	@echo "installing what training and evaluation need into .venv (once, a few minutes)"
	@$(PIP) --editable '.[train,eval,export]'
	@touch $@

.venv/.tox: tox.ini | $(BIN)/python
	@$(PIP) tox==4.58.0
	@touch $@
