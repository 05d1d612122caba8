# `make` lists what there is. VENV=/another/place works with every target.
VENV ?= .venv
PY := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo replicate replicate-full replicate-ablations miniature-lm test check audit docs fmt lock clean bench-contrasts bench-generate bench-memory bench-scale bench-score bench-stages bench-train chaos faults

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Make or refresh .venv from requirements-cpu.lock (a minute; at once when nothing has changed)
	@VENV="$(VENV)" cluster/install.sh

demo: setup ## The whole road on this machine: seeds to report, in runs/demo (five to ten minutes)
	$(VENV)/bin/music-ray run configs/demo.yaml

replicate: setup ## The paper's claim in the miniature: arms A0, A1, A2, one seed, into runs/replicate (40 minutes)
	$(VENV)/bin/music-ray replicate configs/miniature.yaml

replicate-full: setup ## The same with seven arms and five seeds, into runs/replicate-full (hours)
	$(VENV)/bin/music-ray replicate configs/miniature.yaml --scale full --out runs/replicate-full

replicate-ablations: setup ## What the paper leaves open, one change each, into runs/replicate-ablations (two hours)
	$(VENV)/bin/music-ray replicate configs/miniature.yaml --scale ablations --out runs/replicate-ablations

miniature-lm: setup ## Train the miniature's language model anew, over its weights in the package
	$(PY) -m music_ray.miniature.train_lm --out music_ray/miniature/weights

# Tests that want a GPU, or that take minutes (most kill something), are asked for by name: pytest -m faults
test: setup ## Run the tests, the slow ones included
	$(PY) -m pytest -m "not gpu and not faults" --durations=15

bench-contrasts: setup ## What the contrast and user modes cost and achieve, with the demo model (20 minutes)
	$(PY) -m music_ray.bench.contrasts

bench-generate: setup ## Rollouts beside vLLM's own LLM class and ray.data.llm, into runs/bench (20 minutes)
	$(PY) -m music_ray.bench.generate

bench-scale: setup ## What everything but the model costs: 100,000 seeds, a restart, ten million ids (25 minutes)
	$(PY) -m music_ray.bench.scale

bench-stages: setup ## Memory and time of the stages that run in the driver, by rows (10 minutes)
	$(PY) -m music_ray.bench.stages

bench-train: setup ## Training steps beside TRL's RewardTrainer; packed, padded, prefix shared or not (30 minutes)
	$(PY) -m music_ray.bench.train $(if $(PAIRS),--pairs $(PAIRS))

bench-score: setup ## Scores by vLLM's pooling runner beside transformers (10 minutes)
	$(PY) -m music_ray.bench.score

bench-memory: setup ## The memory that training takes beside what the plan says (10 minutes)
	$(PY) -m music_ray.bench.memory

chaos: setup ## Kill nodes, workers and drivers at random for minutes, then count; MINUTES=10 SEED=0 (30 minutes)
	$(PY) -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

faults: setup ## The tests that take minutes: kill drivers, actors and nodes for real, count rows (an hour)
	$(PY) -m pytest -m faults

check: setup ## Lint with bandit's rules, formatting, types; what `make audit` finds as a warning
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	@VENV="$(VENV)" cluster/audit.sh --warn

audit: setup ## Known vulnerabilities of the locked packages, by pip-audit (asks pypi.org)
	@VENV="$(VENV)" cluster/audit.sh

docs: setup ## Write docs/reference/configuration.md from the configuration's classes
	$(PY) -m music_ray.config.reference > docs/reference/.configuration.md
	mv docs/reference/.configuration.md docs/reference/configuration.md

fmt: setup ## Format the code and put right what ruff can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

lock: setup ## Resolve both lock files anew (LOCK_ARGS=--upgrade for the newest versions)
	VENV="$(VENV)" cluster/lock.sh $(LOCK_ARGS)

# Not runs/: what is in there may have cost money.
clean: ## Remove .venv, caches and build leftovers; runs/ stays
	@test ! -e "$(VENV)" || test -f "$(VENV)/pyvenv.cfg" || { echo "clean: $(VENV) is no virtual environment" >&2; exit 2; }
	rm -rf "$(VENV)" "$(VENV).lock" .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
