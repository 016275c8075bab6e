# Everything that one runs. Needs Python 3.11 or newer and GNU make; the rest goes into $(VENV).

VENV := .venv
BIN := $(VENV)/bin
PYTHONS := $(PYTHON) python3.13 python3.12 python3.11 python3.14 python3
RUNTIME := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
WORKERS := 3

# Processes by the dozen start in the tests: each would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.ONESHELL:
.SHELLFLAGS := -ec
.PHONY: help serve demo dashboard test test-slow test-postgresql torture lint format bench pictures wheel install install-dev lock clean

help: ## lists these targets
	@echo 'make TARGET, where TARGET is'
	sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{ printf "%-15s  %s\n", $$1, $$2 }'

# exec: a signal reaches coatcheck itself, and its exit code is the recipe's.
serve: $(RUNTIME) ## runs the service on 127.0.0.1:8000; HOST=, PORT= and COATCHECK_… are respected
	@exec $(BIN)/coatcheck serve $(if $(HOST),--host '$(HOST)') $(if $(PORT),--port '$(PORT)')

demo: $(RUNTIME) ## shows every kind of finding, in a root of its own, and a sweep
	@exec $(BIN)/coatcheck demo

dashboard: $(RUNTIME) ## opens the operators' dashboard
	@exec $(BIN)/coatcheck dashboard

test: $(DEV) ## runs the tests; ARGS= goes to pytest, WORKERS=0 keeps them in one process
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal -m 'not slow and not torture' $(ARGS)

test-slow: $(DEV) ## runs the tests that take seconds each: other programs, services, both ledgers
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal -m 'slow and not torture' $(ARGS)

test-postgresql: $(DEV) ## runs the tests once more, with every ledger that can be on PostgreSQL
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal --postgresql $(ARGS)

torture: $(DEV) ## runs the long tests: crashes, faults and races by the thousand, and says how many
	$(BIN)/python -m pytest -n $(WORKERS) --dist=worksteal -m torture --timeout=3600 -v -rsP $(ARGS)

lint: $(DEV) ## checks style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## formats, and mends what mends itself
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(DEV) ## measures coatcheck beside its rivals; ARGS= goes to the benchmarks
	$(BIN)/python -m benchmarks --install $(ARGS)

pictures: $(DEV) ## makes the docs' pictures anew; needs Chromium
	$(BIN)/python -m docs.pictures $(ARGS)
	PICTURES='$(CURDIR)/docs/pictures' $(BIN)/python -m pytest -q tests/e2e/test_page.py -k 'claimed or everybody'

wheel: $(DEV) ## builds the wheel and the source distribution into dist/
	@$(BIN)/python -c 'from setuptools import build_meta as b; [f("dist") for f in (b.build_sdist, b.build_wheel)]' >/dev/null
	ls -1 dist

install: $(RUNTIME) ## installs what `serve` needs
install-dev: $(DEV) ## installs what `test` needs

# The hashes come from whichever registry is set up; its address stays out of the locks.
COMPILE := pip compile --quiet --no-config --universal --upgrade --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links --group build pyproject.toml

lock: ## resolves the dependencies anew and writes the two locks
	@$(find_python)
	scratch=$$(mktemp -d)
	trap 'rm -rf "$$scratch"' EXIT
	"$$python" -m venv "$$scratch"
	"$$scratch/bin/python" -m pip install --quiet uv
	"$$scratch/bin/uv" $(COMPILE) --extra postgresql -o requirements.txt
	"$$scratch/bin/uv" $(COMPILE) --extra dev -c requirements.txt -o requirements-dev.txt

clean: ## takes away what was built or cached; data/ stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist coatcheck.egg-info
	find . -name __pycache__ -type d -not -path './data/*' -prune -exec rm -rf {} +

$(RUNTIME): requirements.txt pyproject.toml
	@$(call install,requirements.txt)

# The runtime's lock is part of this one.
$(DEV): requirements-dev.txt requirements.txt pyproject.toml
	@$(call install,requirements-dev.txt)
	touch $(RUNTIME)

# Leaves the first of PYTHONS that is good enough in $python.
define find_python
python=
for each in $(PYTHONS); do
	if "$$each" -c 'import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1; then python=$$each; break; fi
done
if [ -z "$$python" ]; then
	echo 'coatcheck needs Python 3.11 or newer, with venv, ssl and sqlite3. None of these is: $(PYTHONS)' >&2
	echo 'Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3' >&2
	exit 1
fi
endef

# Of two makes at once, the second waits and finds it done. What an interrupted one left is made anew.
define install
mkdir -p '$(VENV)'
if command -v flock >/dev/null; then exec 9>'$(VENV)/.lock'; flock 9; fi
if [ -e $@ ] && [ -z "$$(find $^ -newer $@)" ]; then exit; fi
if [ -e '$(VENV)/.unfinished' ]; then
	rm -rf '$(BIN)' '$(VENV)/include' '$(VENV)/lib' '$(VENV)/lib64' '$(VENV)/pyvenv.cfg'
fi
touch '$(VENV)/.unfinished'
if ! '$(BIN)/python' -m pip --version >/dev/null 2>&1; then
	$(find_python)
	echo "Building $(VENV) with $$("$$python" --version)"
	"$$python" -m venv '$(VENV)'
fi
echo 'Installing $(1)'
PIP_DISABLE_PIP_VERSION_CHECK=1 '$(BIN)/python' -m pip install --quiet --require-hashes -r $(1)
PIP_DISABLE_PIP_VERSION_CHECK=1 '$(BIN)/python' -m pip install --quiet --no-deps --no-build-isolation -e .
rm '$(VENV)/.unfinished'
touch $@
endef
