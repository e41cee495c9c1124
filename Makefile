# make site                      this machine becomes a verified PyTorch machine
# make site ARGS="-i X -K"       the same across an inventory; ARGS go to ansible-playbook
# make test                      everything that continuous integration runs
# make test-all                  the same, and what takes longer (make releases, make scenarios, make compat)
# make scenarios NAMES="..."     Molecule's thin scenarios, all or those that are named
# make lint|unit|report|torch|sanity|compat|molecule one part of it;  make build: the collection's archive;  make clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ARGS ?=
# An interpreter to use in place of the newest one found.
PYTHON ?=
SCENARIO ?= default
# Scenarios that make scenarios runs; all of them where it is empty.
NAMES ?=
# KEEP=1 leaves the test nodes up after the tests.
KEEP ?=

VENV := .venv
BIN := $(VENV)/bin
REPORTS := .cache/reports
MOLECULE_ENV = PATH="$(CURDIR)/$(BIN):$$PATH" ANSIBLE_HOST_PATTERN_MISMATCH=error PROJECT_ROOT="$(CURDIR)"

.PHONY: help site test test-all releases compat lint unit report torch sanity molecule integration scenarios nodes-down packages build clean
help:
	@sed -n '/^# make/{s/^# //;p}' Makefile

site: $(VENV)/site.stamp
	@exec $(BIN)/ansible-playbook site.yml $(ARGS)

# Without a Python that can make virtual environments, Debian's package for that is installed where it may be.
define venv
find_python() {
	local minor python
	if [ -n "$(PYTHON)" ]; then echo "$(PYTHON)"; return; fi
	for minor in 14 13 12 11; do
		for python in $$(command -v "python3.$$minor" || true) \
			"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3."$$minor".*/bin/python3 \
			$$(command -v python3 || true) /usr/bin/python3; do
			if "$$python" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, $$minor))" 2>/dev/null; then
				echo "$$python"; return
			fi
		done
	done
}
python=$$(find_python)
if [ -z "$$python" ] && command -v apt-get >/dev/null; then
	if [ "$$(id -u)" = 0 ]; then
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv \
			|| { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv; }
		python=$$(find_python)
	else
		echo "No Python 3.11 or newer with the venv module was found. Install it: sudo apt-get install python3-venv" >&2
		exit 1
	fi
fi
if [ -z "$$python" ]; then
	echo "No Python 3.11 or newer with the venv module was found. Install one, or name it: make site PYTHON=/path/to/python3" >&2
	exit 1
fi
if ! [ -x $(BIN)/python ] || ! $(BIN)/python -c ''; then
	rm -rf $(VENV)
	"$$python" -m venv $(VENV)
fi
endef

define install
$(BIN)/uv --version 2>/dev/null | grep -qF "uv $$(sed -n 's/^uv==//p' requirements.txt)" \
	|| $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.txt)"
VIRTUAL_ENV=$(VENV) UV_SYSTEM_CERTS=1 $(BIN)/uv pip install --quiet -r
endef

$(VENV)/site.stamp: requirements.txt
	@$(venv)
	$(install) requirements.txt
	touch $@

$(VENV)/test.stamp: requirements-test.txt $(VENV)/site.stamp
	@$(install) requirements-test.txt
	touch $@

test:
	@exec python3 tests/tools/steps.py packages lint unit report torch sanity molecule

test-all:
	@exec python3 tests/tools/steps.py packages lint unit report torch sanity compat molecule releases scenarios

packages:
	@exec tests/tools/packages

lint: $(VENV)/test.stamp
	@export PATH="$(CURDIR)/$(BIN):$$PATH"
	ruff check .
	ruff format --check .
	tests/tools/typecheck
	yamllint --strict .
	ansible-lint --offline --strict

unit: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest tests/unit --junitxml=$(REPORTS)/unit.xml $(ARGS)

# The fleet's report in a browser.
report: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest tests/report --junitxml=$(REPORTS)/report.xml $(ARGS)

# The check script under a real torch 2.0.1 and a real 1.13.1; both are installed below .cache once.
torch: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest tests/with_torch -m "not slow" --junitxml=$(REPORTS)/torch.xml $(ARGS)

# Every ansible-core that is promised, and every Python of a node that this machine has.
compat: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(BIN)/python -m pytest tests/compat --junitxml=$(REPORTS)/compat.xml $(ARGS)

sanity: $(VENV)/test.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" exec tests/tools/sanity

# The scenario leaves its nodes up for the integration tests; whatever comes of them, the nodes go afterwards.
molecule: $(VENV)/test.stamp
	@trap '[ -n "$(KEEP)" ] || $(MAKE) --no-print-directory nodes-down' EXIT
	$(MAKE) --no-print-directory nodes-down
	$(MOLECULE_ENV) molecule test -s $(SCENARIO) --destroy=never
	$(MAKE) --no-print-directory integration

integration: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(MOLECULE_ENV) $(BIN)/python -m pytest tests/integration -m "not slow" --junitxml=$(REPORTS)/integration.xml $(ARGS)

# Nodes of their own, so the scenario need not be up.
releases: $(VENV)/test.stamp
	@mkdir -p $(REPORTS)
	$(MOLECULE_ENV) $(BIN)/python -m pytest tests/integration tests/with_torch -m slow --junitxml=$(REPORTS)/releases.xml $(ARGS)

# Every scenario but `default` has its nodes to itself and takes them down.
scenarios: $(VENV)/test.stamp
	@$(MOLECULE_ENV) exec tests/tools/scenarios $(NAMES)

nodes-down: $(VENV)/test.stamp
	@$(MOLECULE_ENV) molecule destroy -s $(SCENARIO)

build: $(VENV)/site.stamp
	@exec $(BIN)/ansible-galaxy collection build --force

clean:
	@if [ -x tests/tools/nodes ] && command -v podman >/dev/null; then python3 tests/tools/nodes down --all; fi
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .ansible gpufleet-stack-*.tar.gz
