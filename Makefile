# Every target makes .venv with the pinned versions of constraints.txt the first time.
#
#   make convert                       the embedded sample: fetch, convert, compare with Paddle, read a picture
#   make convert MODEL=NAME [KIND=trained] [MIRROR=FOLDER_OR_URL] [OUTPUT=converted]
#   make parity [MODEL=NAME | MODELS="NAME NAME" | MODELS=all]   results in parity/, with pages to look at
#   make docs                          the documentation, in site/
#   make bench MIRROR=FOLDER [SECTIONS="inference conversion verification"]   how fast, as ratios
#   make test | lint | format | clean

PYTHON ?= python3
MODEL  ?= embedded_rec
OUTPUT ?= converted
REPORT ?= parity
VENV   := .venv
RUN    := $(VENV)/bin/python
# The package as it is installed, for tools that read sources and do not follow an editable install.
SOURCE := $(VENV)/source

FROM   := $(if $(KIND),--kind $(KIND)) $(if $(MIRROR),--mirror $(MIRROR))

.PHONY: convert parity test lint format docs bench clean venv
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

venv: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.cfg pyproject.toml setup.py
	@echo "setting up $(VENV) (PyTorch and Paddle are some hundred megabytes; this happens once)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable \
		'.[parity,reading,export,hub,cluster,docs,bench,dev]'
	@mkdir -p $(SOURCE)/paddle2torch
	@ln -sfn $(foreach part,$(wildcard face/*) architectures converter reading,$(CURDIR)/$(part)) $(SOURCE)/paddle2torch/
	@touch $@

convert: venv
	@$(RUN) -m paddle2torch convert $(MODEL) --verify $(FROM) --output $(OUTPUT)

parity: venv
	@$(RUN) -m paddle2torch verify $(if $(filter all,$(MODELS)),--all,$(or $(MODELS),$(MODEL))) $(FROM) \
		--report $(REPORT) --summary $(REPORT)/summary.json

test: venv
	OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto $(ARGS)

lint: venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	PYTHONPATH=$(SOURCE) $(VENV)/bin/lint-imports
	MYPYPATH=$(SOURCE) $(RUN) -m mypy --package paddle2torch

format: venv
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: venv
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict

bench: venv
	@$(RUN) -m scripts.bench $(SECTIONS) $(if $(MIRROR),--mirror $(MIRROR))

clean:
	rm -rf $(VENV) build dist site *.egg-info converted parity .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
