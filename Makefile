# Every target makes .venv with the pinned versions of constraints.txt the first time.
#
#   make convert                       the embedded sample: fetch, convert, compare with Paddle, read a picture
#   make convert MODEL=NAME [KIND=trained] [MIRROR=FOLDER_OR_URL] [OUTPUT=converted]
#   make test | lint | clean

PYTHON ?= python3
MODEL  ?= embedded_rec
OUTPUT ?= converted
VENV   := .venv
RUN    := $(VENV)/bin/python

.PHONY: convert test lint format clean venv
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

venv: $(VENV)/.installed

$(VENV)/.installed: constraints.txt setup.cfg pyproject.toml setup.py
	@echo "setting up $(VENV) (PyTorch and Paddle are some hundred megabytes; this happens once)"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[parity,dev]'
	@touch $@

convert: venv
	@$(RUN) -m converter convert $(MODEL) --verify $(if $(KIND),--kind $(KIND)) $(if $(MIRROR),--mirror $(MIRROR)) --output $(OUTPUT)

test: venv
	$(RUN) -m pytest --numprocesses auto $(ARGS)

lint: venv
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: venv
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info converted .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
