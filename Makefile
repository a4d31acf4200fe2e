# `make book` builds the website; `make test` proves everything. The rest serves those two.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SITE   := _build/html

# How notebooks run wherever their outputs are stored or compared: no progress bars, and one thread,
# because for networks of this size two threads on a busy machine are five times slower than one.
export FLOWLIB_PROGRESS ?= 0
export OMP_NUM_THREADS ?= 1

# `make test` in so many processes; one at a time, which is easier to follow, is PROCESSES=0.
PROCESSES ?= 2
# `make mistakes MISTAKES=--tested` right after a `make test` that passed does not run those again.
MISTAKES ?=

# `make pdf PAPER=letter`
PAPER ?= A4

.PHONY: book pdf lab notebooks test mistakes weights heights style types oldest address requirements bench vendor clean

book: $(READY)
	@$(BIN)/python -m tools.site $(SITE)

lab: $(READY)
	FLOWLIB_PROGRESS=1 $(BIN)/jupyter lab chapters

notebooks: $(READY)
	@$(BIN)/python tools/notebooks.py

style: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	@$(BIN)/mypy

test: style types $(VENV)/compat/.ready $(VENV)/peers/.ready
	@$(BIN)/python -m pytest -n $(PROCESSES)

mistakes: $(READY)
	@$(BIN)/python tools/mistakes.py $(MISTAKES)

weights: $(READY)
	@$(BIN)/python tools/weights.py --check

pdf: book
	@$(BIN)/python -m tools.pdf $(SITE) _build/normalizing-flows.pdf --paper $(PAPER)

heights: book
	@$(BIN)/python tools/measure.py $(SITE) --heights

address: $(READY)
	@$(BIN)/python tools/address.py "$(URL)"
	@$(MAKE) --no-print-directory notebooks

# --- environments -------------------------------------------------------------------------

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed; {sys.executable} is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

# What Colab has, laid over the environment by one test: ipywidgets 7.7 and anywidget 0.9.
$(VENV)/compat/.ready: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/compat \
	    ipywidgets==7.7.1 anywidget==0.9.21 ipython_genutils==0.2.0
	@touch $@

# flowlib's peers as `make bench` compares with, without what they depend on: check_flow is tested
# on their flows. And Pyro, in which a flow is tried as a prior and as a guide.
$(VENV)/peers/.ready: $(READY) benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/peers \
	    $$(grep -E '^(zuko|nflows|normflows)==' benchmarks/requirements.txt) \
	    pyro-ppl==1.9.2 pyro-api==0.1.2 opt-einsum==3.4.0
	@touch $@

# torch 2.13.0 is pinned because it is the newest that every machine the book is built on can
# install; a build's local version (`+cpu`) is cut off, so that the file installs anywhere.
requirements:
	$(PYTHON) -m venv $(VENV)-pip-tools
	$(VENV)-pip-tools/bin/python -m pip install --quiet 'pip-tools==7.6.2'
	$(VENV)-pip-tools/bin/pip-compile --quiet --extra book --strip-extras --no-emit-index-url \
	    --no-emit-find-links --upgrade-package torch==2.13.0 --output-file requirements.txt pyproject.toml
	sed -i.bak -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/' requirements.txt && rm requirements.txt.bak
	rm -rf $(VENV)-pip-tools

# The library on the oldest dependencies that pyproject.toml promises, in an environment of their
# own. On Linux the oldest torch brings CUDA along, which is some GB. Tests of the book, the site
# and the repository stay out: they need what builds the book.
OLDEST := $(VENV)-oldest
NOT_THE_LIBRARY := benchmarks chapters kernel repository site workflows
oldest: $(OLDEST)/.ready
	@$(OLDEST)/bin/python -m pytest tests flowlib -n $(PROCESSES) -m "not browser" \
	    -o addopts="--doctest-modules --strict-markers --strict-config -ra" \
	    $(NOT_THE_LIBRARY:%=--ignore=tests/test_%.py)

$(OLDEST)/.ready: pyproject.toml requirements.txt tools/oldest.py
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python tools/oldest.py > $(OLDEST)/requirements.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	    --requirement $(OLDEST)/requirements.txt --editable .
	@touch $@

# flowlib beside its peers, in an environment of their own; about two hours on one core.
BENCH := $(VENV)-bench
bench: $(BENCH)/.ready
	$(BENCH)/bin/python benchmarks/speed.py benchmarks/results/speed.json
	$(BENCH)/bin/python benchmarks/memory.py benchmarks/results/memory.json
	$(BENCH)/bin/python benchmarks/made.py benchmarks/results/made.json
	$(BENCH)/bin/python benchmarks/maf.py benchmarks/results/maf.json
	$(BENCH)/bin/python benchmarks/compile.py benchmarks/results/compile.json
	$(BENCH)/bin/python benchmarks/learning.py benchmarks/results/learning.json
	$(BENCH)/bin/python benchmarks/learning.py benchmarks/results/maf-learning.json --family maf
	$(BENCH)/bin/python benchmarks/learning.py benchmarks/results/maf-parts.json --family parts --seeds 3
	$(BENCH)/bin/python benchmarks/learning.py benchmarks/results/ours.json --family ours
	$(BENCH)/bin/python benchmarks/classics.py benchmarks/results/classics.json
	$(BENCH)/bin/python benchmarks/digits.py benchmarks/results/digits.json
	$(BENCH)/bin/python benchmarks/posterior.py benchmarks/results/posterior.json
	$(BENCH)/bin/python benchmarks/diagnosis.py benchmarks/results/diagnosis.json
	$(BENCH)/bin/python benchmarks/report.py

$(BENCH)/.ready: benchmarks/requirements.txt pyproject.toml
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# The browser assets in book/assets/vendor, fetched anew (needs npm; nothing else does).
vendor:
	@sh tools/vendor.sh

clean:
	rm -rf _build .pytest_cache .ruff_cache .mypy_cache .hypothesis
