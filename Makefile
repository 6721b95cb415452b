# Each target makes .venv and installs what it needs first.
#   make quickstart     train, export, bench and report on digits; runs/quickstart/report.html
#   make test           lint, types and tests
#   make test-slow      the tests that take minutes each
#   make docs           the documentation, in site/; warnings are errors
#   make test-android   compile and test the Android app, and run it behind adb; needs JDK 17 and Maven
#   make test-ios       compile and test the iOS app's Swift, and run it behind its driver; installs Swift where it can
#   make test-arm64     Android bundles on ARM's kernels, under emulation

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart
ANDROID := tests/android
IOS := tests/ios
# PyTorch's own index has its CPU builds; PyPI's Linux wheel brings gigabytes of CUDA. On a GPU workstation:
# make install TORCH_INDEX=https://pypi.org/simple
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install tools quickstart test test-slow test-android test-ios test-arm64 lint docs clean

help:
	@sed -n '2,8s/^#   //p' Makefile

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
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not arm64"

test-slow: install
	$(BIN)/pytest -q -m slow

# PyTorch is not needed: the pages are generated from the sources, the command line and the presets.
$(VENV)/docs-installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[docs]'
	touch $@

docs: $(VENV)/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Gradle needs Google's repository for Android's plugin; the same sources are built here by Maven, from Maven Central.
test-android: install tools
	@if ! command -v mvn >/dev/null || ! java -version 2>&1 | grep -q 'version "17'; then \
	    echo "the Android harness was not tested: it needs JDK 17 and Maven, as in Debian's openjdk-17-jdk-headless, maven"; \
	else \
	    $(BIN)/python $(ANDROID)/snippets.py $(ANDROID)/app/target/snippets && \
	    $(BIN)/python $(ANDROID)/fetch_classes.py $(ANDROID)/app/target/executorch.jar && \
	    mvn --batch-mode --quiet --file $(ANDROID)/pom.xml verify && \
	    RDD_EDGE_ANDROID_TESTS=$(ANDROID)/core/target $(BIN)/pytest -q tests/targets/test_android_harness.py tests/benchmarking/test_adb.py; \
	fi

test-ios: install
	@if sh $(IOS)/install_swift.sh; then \
	    sh $(IOS)/core_tests.sh && \
	    RDD_EDGE_IOS_HARNESS="sh $(CURDIR)/$(IOS)/harness.sh" $(BIN)/pytest -q tests/targets/test_ios_harness.py \
	        tests/targets/test_ios_app.py tests/benchmarking/test_ios_driver.py; \
	fi

test-arm64: install
	@sh tests/tools.sh arm64
	$(BIN)/pytest -q -rP tests/targets/test_arm64.py tests/test_benchmarks.py -k arm64

clean:
	rm -rf $(VENV) runs site .mypy_cache .pytest_cache .ruff_cache
