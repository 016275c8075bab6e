# Everything that one runs. Needs Python 3.11 or newer and make; the rest goes into $(VENV).

VENV ?= .venv
BIN := $(VENV)/bin
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3
RUNTIME := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help serve demo dashboard test torture lint format bench pictures lock install install-dev clean

help: ## lists these targets
	@echo 'make TARGET, where TARGET is'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-13s %s\n", $$1, $$2 }'

# `exec`: a signal reaches coatcheck itself, and its exit code is the recipe's.
serve: $(RUNTIME) ## runs the service on 127.0.0.1:8000; HOST=, PORT= and COATCHECK_… are respected
	@exec $(BIN)/coatcheck serve $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)')

demo: $(RUNTIME) ## shows every kind of finding in a root of its own, and a sweep
	@exec $(BIN)/coatcheck demo

dashboard: $(RUNTIME) ## opens the operators' dashboard
	@exec $(BIN)/coatcheck dashboard

test: $(DEV) ## runs the tests; ARGS= goes to pytest, WORKERS=0 runs them in one process
	$(PYTEST) -n $(WORKERS) --maxprocesses=4 --dist=worksteal $(ARGS)

torture: $(DEV) ## runs the long tests: crashes, faults and races by the thousand
	$(PYTEST) -m torture --timeout=3600 $(ARGS)

lint: $(DEV) ## checks style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## formats, and mends what can be mended by itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(DEV) ## measures; the results go to docs/performance.md by hand
	$(BIN)/python -m benchmarks $(ARGS)

pictures: $(DEV) ## makes the README's pictures anew; needs Chromium
	$(BIN)/python -m docs.pictures $(ARGS)

install: $(RUNTIME) ## only installs what `serve` needs
install-dev: $(DEV) ## only installs what `test` needs

# Hashes come from the registry that is set up; its address stays out of the locks.
COMPILE = "$$scratch/bin/uv" --no-config pip compile -q --universal --generate-hashes --upgrade \
	--no-header --no-emit-index-url --no-emit-find-links --group build pyproject.toml
lock: ## resolves the dependencies anew and writes the locks
	@set -e; $(find_python); scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	"$$python" -m venv "$$scratch"; "$$scratch/bin/python" -m pip install -q uv; \
	$(COMPILE) --extra postgresql -o requirements.txt; \
	$(COMPILE) --extra dev -c requirements.txt -o requirements-dev.txt

clean: ## takes away what was built; data/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist coatcheck.egg-info
	find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

$(RUNTIME): requirements.txt pyproject.toml
	$(call install,requirements.txt)
	@touch $(RUNTIME)

$(DEV): requirements-dev.txt pyproject.toml
	$(call install,requirements-dev.txt)
	@touch $(RUNTIME) $(DEV)

# Leaves the first of PYTHONS that is new enough in $python.
define find_python
python=; for each in $(PYTHONS); do \
	if "$$each" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1; then python=$$each; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo 'coatcheck needs Python 3.11 or newer with venv, ssl and sqlite3; found none among: $(PYTHONS).' >&2; \
	echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
	exit 1; \
fi
endef

# An environment whose making was interrupted is emptied first; nothing else is ever emptied.
define install
@set -e; \
if [ -e '$(VENV)/.unfinished' ] || ! '$(BIN)/python' -m pip --version >/dev/null 2>&1; then \
	$(find_python); \
	clear=; if [ -e '$(VENV)/pyvenv.cfg' ]; then clear=--clear; fi; \
	echo "Building $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $$clear '$(VENV)'; \
fi; \
touch '$(VENV)/.unfinished'; \
echo 'Installing $(1)'; \
'$(BIN)/python' -m pip install -q --disable-pip-version-check --require-hashes -r $(1); \
'$(BIN)/python' -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .; \
rm '$(VENV)/.unfinished'
endef
