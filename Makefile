# The one door. Needs make and Python 3.11 or newer, nothing else: everything more is installed into .venv from
# requirements/lock.txt, hash by hash.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# The first interpreter that really is 3.11 or newer; `make PYTHON=/path/to/python3` overrules the search.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
VENV := .venv
RUN := $(VENV)/bin/python

# A cluster for demos and tests: KUBECONFIG's, or one that the programs in this directory bring up on this machine.
export KUBE ?= $(wildcard $(CURDIR)/../shared/kube)
FILE ?= examples/kubernetes/job.yaml

# Tests wait more than they compute, so three processes keep two cores busy. Each takes over what the slowest has not
# begun. `make test PARALLEL=` runs them in one process. Those of `make test-slow` that kill at random moments, and look
# at how long things take, have the machine to themselves.
PARALLEL ?= -n 3 --dist worksteal
# Bytecode is kept, whatever the environment says: else each process of the tests compiles the house anew.
PYTEST := PYTHONDONTWRITEBYTECODE= $(RUN) -m pytest

.PHONY: help demo cluster-demo setup test test-slow test-long test-cluster test-again test-all lint type docs bench lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):[^#]*## */\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-13s %s\n' "$$target" "$$text"; done

demo: setup  ## tune a real model on real data, with a live display
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH"; VIRTUAL_ENV="$(CURDIR)/$(VENV)"; export PATH VIRTUAL_ENV; \
	set -- evertune run examples/digits.yaml; taken=$$(evertune list -o name); name= number=1; \
	while printf '%s\n' "$$taken" | grep -qx "$${name:-digits}"; do \
		number=$$((number + 1)); name=digits-$$number; done; \
	set -- "$$@" $${name:+--name "$$name"}; echo "$$@" >&2; exec "$$@"

cluster-demo: setup  ## the same with real pods, on a cluster: FILE=examples/kubernetes/job.yaml, tfjob.yaml, …
	deploy/cluster/demo.sh $(FILE)

setup: $(VENV)/.ready  ## install into .venv (all other targets do it when needed)

test: setup  ## the default test suite
	$(PYTEST) $(PARALLEL)

SLOW := (slow or chaos) and not long and not bench and not cluster
COMPUTES := tests/unit/algorithms tests/contract

test-slow: setup  ## what the default suite leaves out: slow tests and chaos
	@failed=0; set -x; \
	$(PYTEST) -m "$(SLOW)" --timeout 900 $(PARALLEL) $(COMPUTES) || failed=1; \
	$(PYTEST) -m "$(SLOW)" --timeout 900 $(foreach path,$(COMPUTES),--ignore $(path)) || failed=1; \
	exit $$failed

test-long: setup  ## models of many trials, Katib's files with their own counts: half an hour
	$(PYTEST) -m "long and not cluster" --timeout 1800 $(PARALLEL)

test-cluster: setup  ## tests on a real Kubernetes cluster: KUBECONFIG's, or one that is brought up
	deploy/cluster/test.sh

# Three processes of tests beside each other keep real servers and trials waiting. What failed among them is tried once
# more, alone: broken is what fails again. What passes now is unsteady, and stands in the output to be mended.
test-again: setup  ## those tests that failed last, one after the other
	@echo "== failed beside others, tried again alone; what passes is unsteady, and to be mended all the same:" >&2
	$(PYTEST) -m "not cluster and not bench" --timeout 900 --last-failed --last-failed-no-failures none -v

test-all: test test-slow  ## every test but the benchmarks and those on a cluster

lint: setup  ## ruff, formatting, and the layers of the house
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	PYTHONPATH=. $(VENV)/bin/lint-imports

type: setup  ## mypy, strict
	$(RUN) -m mypy

docs: setup  ## write the generated pages of docs/ anew
	$(RUN) -m docs.generate

bench: setup  ## measure, beside Optuna in the same run, and print ratios
	$(RUN) -m bench

lock:  ## resolve pyproject.toml into requirements/*.txt (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH: python3 -m pip install uv" >&2; exit 1; }
	$(COMPILE) --group dev --upgrade --output-file requirements/lock.txt
	$(COMPILE) --constraints requirements/lock.txt --output-file requirements/runtime.txt

# For every platform and every Python from 3.11 on; nothing in the files says where the packages come from.
COMPILE := uv pip compile pyproject.toml --extra postgresql --extra operator --universal --python-version 3.11 --generate-hashes --quiet \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links

clean:  ## remove .venv, caches and build products (never an EVERTUNE_HOME)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Two stamps, so that a changed pyproject.toml costs a second and only a changed lock costs an installation.
$(VENV)/.locked: requirements/lock.txt
	@test -n "$(PYTHON)" || { echo "evertune needs Python 3.11 or newer, and none was found on the PATH;" \
		"install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/lock.txt
	@touch $@

$(VENV)/.ready: $(VENV)/.locked pyproject.toml
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
