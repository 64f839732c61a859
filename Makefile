# The words a contributor types. Everything installs itself into .venv on first use, from the lock file.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help bench test test-netem test-clients log-writes crosscheck simulate lint perf rivals trips copies snapshots migrations nodes balance stripes aa-study coverage-study mutants first-run \
        lock picture wheel clean

help:
	@echo "make bench       measure the limits of synchronous replication and print the report (about 4 minutes)"
	@echo "make test        all tests, with real labs on the ferry"
	@echo "make test-netem  the lab tests on real tc netem, in user-mode Linux (Debian: apt install user-mode-linux)"
	@echo "make test-clients  the kernel's own clients in user-mode Linux, on served volumes (Debian: nbd-client, open-iscsi,"
	@echo "                 multipath-tools, udev, postgresql)"
	@echo "make log-writes  the journal replayed at each flush that reached a disk, recorded by dm-log-writes in user-mode Linux"
	@echo "make crosscheck  every emulation of a link against what was asked: docs/links.md (about 6 minutes)"
	@echo "make simulate    search the engine for lost writes in a pretend world, from seeds (SEEDS=1000, FROM=0), and print which"
	@echo "                 planted faults it finds; FAULTS=1 plants those that are not recorded yet (half an hour for all)"
	@echo "make lint        ruff and mypy"
	@echo "make aa-study    how often the gate errs, on rounds measured for it (about 20 minutes)"
	@echo "make first-run   the main job again and again, idle and beside a busy neighbour (FIRST='--idle 10 --busy 3'; an hour)"
	@echo "make coverage-study  how often intervals hold the truth, in worlds whose truth is known (a few minutes)"
	@echo "make mutants     whether the tests notice small changes of the statistics and the step kernels (MUTANTS='--faults'; hours in full)"
	@echo "make perf        speed, as ratios against floors, then what make rivals measures"
	@echo "make trips       how many round trips a write waits for, at our doors and at tgt, QEMU and nbdkit (a few minutes)"
	@echo "make copies      remote copy beside protocols A and C: recovery points over distance, rate and change rate (a quarter of an hour)"
	@echo "make snapshots   what a snapshot costs whoever writes, beside QEMU's (a quarter of an hour)"
	@echo "make migrations  what moving a volume costs whoever writes meanwhile, by mirror, passes or snapshot (a quarter of an hour)"
	@echo "make nodes       a pool's node added, drained and lost: what is moved, and what writes take meanwhile (eight minutes)"
	@echo "make balance     eight volumes of unequal load on four nodes, before and after their load is evened out (three minutes)"
	@echo "make stripes     what the router of a striped volume costs beside a group's own door (four minutes)"
	@echo "make rivals      beside QEMU, DRBD and iperf3 in one lab (about a quarter of an hour; RIVALS='--rounds 3' is shorter)"

# uv when it is there, otherwise venv and pip; both from the same lock file, with its hashes.
$(READY): requirements.lock pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
		echo "installing into $(VENV) (once)" && \
		uv venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV) && \
		uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps -e . ; \
	else \
		echo "installing into $(VENV) (once)" && \
		{ $(PYTHON) -m venv $(VENV) || { echo "python3 cannot make virtual environments: apt install python3-venv, or install uv" >&2; exit 1; }; } && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $(READY)

bench: $(READY)
	@$(BIN)/farwrite run limits; code=$$?; [ $$code -lt 128 ] || exit $$code; \
	$(BIN)/farwrite drill $(BENCH_DRILL) --memory --table --quiet || [ $$? -ne 5 ] || exit 5; \
	exit $$code

# A failover beside the limits: one row, of few trials. What it does not measure is unknown in it; a lost write is an error (5).
BENCH_DRILL := primary-killed --trials 2

# Labs are opened one at a time; what needs none is tested beside them, what waits beside both. Compiled first: all would otherwise
# compile the same. The kernel's clients have a target of their own: they boot kernels, and want packages that nothing else does.
CLIENTS := tests/lab/test_kernel_clients.py

# Python's bytecode is kept below .venv, whatever the environment says: the tests start Python hundreds of times. That of the tests,
# with pytest's assertions, is made by one process beside the one that compiles the doors, or each of the four would make it all.
TESTING := PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(CURDIR)/$(VENV)/bytecode $(BIN)/python
ASSERTIONS := $(VENV)/bytecode/assertions

test: $(READY)
	@$(TESTING) -m farwrite.experiment.compilation
	@if [ ! -e $(ASSERTIONS) ] || [ -n "$$(find tests -name '*.py' -newer $(ASSERTIONS) -print -quit)" ]; then \
		$(TESTING) -m pytest --collect-only -qq --ignore=$(CLIENTS) >/dev/null 2>&1 && touch $(ASSERTIONS) & \
	fi; \
	$(TESTING) -m farwrite.experiment.compilation doors; code=$$?; wait; exit $$code
	@$(TESTING) -m pytest -n 4 --no-loadscope-reorder --ignore=$(CLIENTS)

# What a link has a part in; the rest is the same on any, and proven outside, where a processor is not ten times slower.
ON_NETEM := $(addprefix tests/lab/test_,lab.py link.py run.py nothing_left.py congestion.py)

test-netem: $(READY)
	@tests/lab/uml/run --timeout 900 -- $(BIN)/python -m pytest $(ON_NETEM) -q -m lab --durations=8

test-clients: $(READY)
	@$(BIN)/python -m pytest $(CLIENTS) -q -rs --durations=8

# The real journal below dm-log-writes, replayed as it stood after each flush that reached the disk.
LOG_WRITES := $(VENV)/log-writes

log-writes: $(READY)
	@mkdir -p $(VENV) && rm -f $(LOG_WRITES)
	@tests/lab/uml/run --disk 8 --disk 64 --module drivers/md/dm-mod.ko --module drivers/md/dm-log-writes.ko -- \
		$(BIN)/python tests/lab/log_writes.py record $(LOG_WRITES) || [ $$? -eq 77 ]
	@[ ! -e $(LOG_WRITES) ] || $(BIN)/python tests/lab/log_writes.py replay $(LOG_WRITES)

# Each link in a kernel that has it; netem needs user-mode Linux, and is left out where that is not installed.
CROSSCHECK := $(VENV)/crosscheck

crosscheck: $(READY)
	@mkdir -p $(CROSSCHECK) && rm -f $(CROSSCHECK)/*.json
	@$(BIN)/python tests/lab/crosscheck.py measure ferry $(CROSSCHECK)/ferry.json
	@$(BIN)/python tests/lab/crosscheck.py measure relay $(CROSSCHECK)/relay.json
	@tests/lab/uml/run -- $(BIN)/python tests/lab/crosscheck.py measure netem $(CROSSCHECK)/netem.json || [ $$? -eq 77 ]
	@$(BIN)/python tests/lab/crosscheck.py table results/crosscheck.json docs/links.md $(CROSSCHECK)/*.json

SEEDS ?= 1000
FROM ?= 0
FAULTS ?=

simulate: $(READY)
	@if [ -n "$(FAULTS)" ]; then \
		$(BIN)/python tests/speed/simulator_faults.py; \
	else \
		$(BIN)/farwrite simulate --seeds $(SEEDS) --from $(FROM) && \
		$(BIN)/python tests/speed/simulator_faults.py --show; \
	fi

lint: $(READY)
	@$(BIN)/ruff check bench tests workloads
	@$(BIN)/mypy

perf: $(READY)
	@$(BIN)/python -m pytest tests/speed --benchmark-only --benchmark-columns=min,median,ops,rounds --benchmark-sort=name
	@$(MAKE) --no-print-directory rivals

RIVALS ?=

rivals: $(READY)
	@$(BIN)/python -m rivals $(RIVALS)

trips: $(READY)
	@$(BIN)/python tests/speed/trips_study.py

copies: $(READY)
	@$(BIN)/python tests/speed/copy_study.py

snapshots: $(READY)
	@$(BIN)/python tests/speed/snapshot_study.py

migrations: $(READY)
	@$(BIN)/python tests/speed/migration_study.py

nodes: $(READY)
	@$(BIN)/python tests/speed/node_study.py

balance: $(READY)
	@$(BIN)/python tests/speed/balance_study.py

stripes: $(READY)
	@$(BIN)/python tests/speed/stripe_study.py

aa-study: $(READY)
	@$(BIN)/python tests/speed/aa_study.py

FIRST ?= --idle 10 --busy 3

first-run: $(READY)
	@$(BIN)/python tests/speed/first_run.py $(FIRST)

coverage-study: $(READY)
	@$(BIN)/python tests/speed/coverage_study.py

# Resumable: what was run counts as long as module and tests are as they were. MUTANTS='--module analysis/estimate --sample 50 --seed 1'
MUTANTS ?=

mutants: $(READY)
	@nice -n 15 $(BIN)/python tests/speed/mutants.py $(MUTANTS)

lock: $(READY)
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --group dev pyproject.toml -o requirements.lock

# The picture in the README, from the committed baseline.
picture: $(READY)
	@$(BIN)/python -m farwrite.report.picture results/baselines/limits.json docs/report.svg

wheel: $(READY)
	@$(BIN)/python -m build --wheel --outdir dist .

clean:
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
