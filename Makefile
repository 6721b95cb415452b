# Each target makes .venv and installs what it needs first.
#   make quickstart     train, export, bench and report on digits; runs/quickstart/report.html
#   make test           lint, types and tests
#   make test-slow      the tests that take minutes each
#   make test-arm64     Android bundles on ARM's kernels, under emulation

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
# PyTorch's own index has its CPU builds; PyPI's Linux wheel brings gigabytes of CUDA. On a GPU workstation:
# make install TORCH_INDEX=https://pypi.org/simple
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install tools quickstart test test-slow test-arm64 lint clean

help:
	@sed -n '2,5s/^#   //p' Makefile

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --retries 1 --timeout 15 --extra-index-url $(TORCH_INDEX) "torch>=2.13,<2.14"
	$(PIP) --editable '.[dev]'
	touch $@

quickstart: install
	$(BIN)/rdd-edge quickstart --out $(OUT)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tools:
	@sh tests/tools.sh

test: lint tools
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadfile -m "not slow and not arm64"

test-slow: install
	$(BIN)/pytest -q -m slow

test-arm64: install
	@sh tests/tools.sh arm64
	$(BIN)/pytest -q -rP tests/targets/test_arm64.py

clean:
	rm -rf $(VENV) runs .mypy_cache .pytest_cache .ruff_cache
