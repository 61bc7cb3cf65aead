# Two commands for a fresh clone: `make demo` (scores six made-up scans) and `make test` (everything CI checks).
# PYTHON=python3.12 make test   uses another interpreter; pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS ...) hold.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo
DEVICE ?= cpu
SURFACES ?=
BUNDLE ?=
VERSION ?=
SCANS ?= 1000
WORKERS ?= 1
# Small products: threads that wait for busy cores take longer over them than one does, and round otherwise than one.
# Huge pages: a virtual machine may have to be given each by its host.
export OPENBLAS_NUM_THREADS ?= 1
export NUMPY_MADVISE_HUGEPAGE ?= 0

.PHONY: demo test lint bench soak prepare split train export classifier release evaluate evaluate-real evaluate-plain \
        results benchmark register promote network-speed ablation contact-sheets check-simulation clean help
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.scoring  ## make six scans, score them, show truth against result (OUT=demo)
	$(BIN)/sacroleak demo --out $(OUT)
	@echo "Open $(OUT)/demo.html in a browser: the six scans, with pictures and findings."

test: lint  ## everything CI checks: style, types, import rule, tests
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev  ## style, types and the import rule, without the tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## seconds of a scan and of a batch, and of other ways in the same run: metrics/benchmark.json
	$(BIN)/python -m sacroleak.training.batch_speed $(if $(BUNDLE),--bundle $(BUNDLE))

soak: $(VENV)/.scoring  ## 1,000 small scans, broken ones among them, in a run that is killed again and again (SCANS=1000)
	$(BIN)/python -m sacroleak.inference.soak --count $(SCANS)

prepare: $(VENV)/.dev  ## make the anatomies that training draws from (SURFACES=folder of surface files, or none)
	$(BIN)/python -m sacroleak.training.prepare --out artifacts/anatomies $(if $(SURFACES),--surfaces $(SURFACES))

split: $(VENV)/.dev  ## check that no patient is on both sides
	$(BIN)/python -m sacroleak.training.split --anatomies artifacts/anatomies --out artifacts/split.json

train: split  ## train the four networks, or go on where they stopped (DEVICE=cuda on a GPU)
	for network in coarse fine near under; do $(BIN)/python -m sacroleak.training.train_segmenter --device $(DEVICE) \
	  --config configs/train_$$network.yaml --out artifacts/train_$$network || exit 1; done

export: split  ## turn the trained networks into ONNX, check that both say the same, and ready them for 8-bit integers
	for network in coarse fine near under; do $(BIN)/python -m sacroleak.training.export --config configs/train_$$network.yaml \
	  --checkpoint artifacts/train_$$network/checkpoint.pt --out artifacts/float32/$$network.onnx && \
	  $(BIN)/python -m sacroleak.training.quantise --train-config configs/train_$$network.yaml \
	  --network artifacts/float32/$$network.onnx --out artifacts/export/$$network.onnx || exit 1; done

classifier: $(VENV)/.dev  ## let the leak classifier learn from simulated scans as the exported networks see them
	$(BIN)/python -m sacroleak.training.extract_features --exported artifacts/export --out artifacts/leak_cases
	$(BIN)/python -m sacroleak.training.train_classifier --tables artifacts/leak_cases --out artifacts/classifier

release: $(VENV)/.dev  ## write the exported networks, and the classifier if there is one, as a release that scoring uses
	$(BIN)/python -m sacroleak.training.release --exported artifacts/export --classifier artifacts/classifier \
	  --released models/released

evaluate: $(VENV)/.dev  ## measure the released model on the benchmark (WORKERS=2 scans at a time), then docs/results.md
	$(BIN)/python -m sacroleak.training.evaluate benchmark --workers $(WORKERS) $(if $(BUNDLE),--bundle $(BUNDLE))

evaluate-real: $(VENV)/.dev  ## measure it on a real CT with labels (CT=ct.nii.gz LABELS=labels.nii.gz)
	$(BIN)/python -m sacroleak.training.evaluate real --ct $(CT) --labels $(LABELS) $(if $(BUNDLE),--bundle $(BUNDLE))

evaluate-plain: $(VENV)/.dev  ## measure it on scans of another maker, which shares nothing with the simulation (WORKERS=2)
	$(BIN)/python -m sacroleak.training.evaluate_plain --workers $(WORKERS) $(if $(BUNDLE),--bundle $(BUNDLE))

network-speed: $(VENV)/.dev  ## seconds inside the networks on 512x512x300 voxels, and their share of the machine's peak
	$(BIN)/python -m sacroleak.training.network_speed $(if $(BUNDLE),--bundle $(BUNDLE))

ablation: $(VENV)/.dev  ## what each part of training and inference brings (CT=, LABELS= as above or none; ONLY=inference: no trainings)
	$(BIN)/python -m sacroleak.training.ablation $(if $(CT),--ct $(CT) --labels $(LABELS)) $(if $(BUNDLE),--bundle $(BUNDLE)) \
	  $(if $(ONLY),--only $(ONLY))

results: $(VENV)/.dev  ## write docs/results.md from the metrics that are there
	$(BIN)/python -m sacroleak.training.evaluate page

benchmark: $(VENV)/.dev  ## make the scans that releases are measured on (evaluate does it too)
	$(BIN)/python -m sacroleak.training.benchmark

contact-sheets: $(VENV)/.dev  ## docs/simulated_*.png: every site and every distractor, truth as lines
	$(BIN)/python -m sacroleak.training.contact_sheet --out docs

check-simulation: $(VENV)/.dev  ## metrics/simulation.json: volumes, compartments and label rules of 200 patients
	$(BIN)/python -m sacroleak.training.check_simulation --count 200

register: $(VENV)/.dev  ## put the released model into MLflow's registry as the challenger
	$(BIN)/python -m sacroleak.training.register --out artifacts/registered.json $(if $(BUNDLE),--bundle $(BUNDLE))

promote: $(VENV)/.dev  ## make the registry's challenger its champion (VERSION=3 for another one)
	$(BIN)/python -m sacroleak.training.register promote $(if $(VERSION),--version $(VERSION))

clean:  ## remove what this file built; artifacts/ and models/released/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf demo

# A stamp is newer than the files that decide what is installed, so a second run installs nothing.
$(VENV)/.scoring: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.)
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[dev])
	@touch $(VENV)/.scoring $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	$(call install,.[bench$(comma)dev])
	@touch $(VENV)/.scoring $(VENV)/.dev $@

comma := ,

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sacroleak needs Python 3.11 or newer, %s is %d.%d: \
	set PYTHON=python3.11 (or newer)" % (sys.executable, *sys.version_info[:2]))'
	$(PYTHON) -m venv $(VENV)

# uv installs in seconds what takes pip minutes, but reads none of pip's settings: hand over those that decide where
# packages come from, and fall back to pip when uv cannot find them.
define install
	@if command -v uv >/dev/null 2>&1 && \
	  env $${PIP_FIND_LINKS:+"UV_FIND_LINKS=$$PIP_FIND_LINKS"} $${PIP_INDEX_URL:+"UV_DEFAULT_INDEX=$$PIP_INDEX_URL"} \
	  $${PIP_EXTRA_INDEX_URL:+"UV_INDEX=$$PIP_EXTRA_INDEX_URL"} $${PIP_CERT:+"SSL_CERT_FILE=$$PIP_CERT"} \
	  uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '$(1)'; \
	then echo "Installed $(1) with uv."; \
	else echo "Installing $(1) with pip; this takes a few minutes the first time." && \
	  $(BIN)/python -m pip install --quiet -c constraints.txt -e '$(1)'; fi
endef
