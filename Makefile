# `make` lists the targets. Nothing here compiles or needs root; Python 3.10 to 3.12 with pip is all it asks for.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
VENV ?= .venv
UPSTREAM ?= .venv-upstream
DOCS ?= .venv-docs
TESTS ?=
WORKERS ?= 2
# mmcv's setup.py would start a compiler whenever it sees torch; mim_mm/compat makes that unnecessary
export MMCV_WITH_OPS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PIP_INSTALL := -m pip install --quiet -c constraints.txt

# a file's tests stay in one process: they share fixtures that train
SIDE_BY_SIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

CODE := mim_mm tools tests configs setup.py

CANDIDATES := $(or $(PYTHON),python3.11 python3.12 python3.10 python3 python)
VERSION_RULE := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))

# Makes the virtual environment $(@D), or keeps a sound one.
define make_venv
if ! "$(@D)/bin/python" -c '$(VERSION_RULE)' 2>/dev/null || ! "$(@D)/bin/python" -m pip --version >/dev/null 2>&1; then \
  found=''; \
  for candidate in $(CANDIDATES); do \
    if "$$candidate" -c '$(VERSION_RULE)' 2>/dev/null && "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; \
    then found=$$candidate; break; fi; \
  done; \
  if [[ -z $$found ]]; then \
    echo 'No Python >= 3.10, < 3.13 with venv and pip among: $(CANDIDATES).' >&2; \
    echo 'Fix: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)' >&2; \
    echo '(on Debian and Ubuntu venv is in the package python3-venv)' >&2; exit 1; \
  fi; \
  echo "Creating $(@D) with $$("$$found" --version)"; \
  "$$found" -m venv --clear "$(@D)"; \
fi
endef

# Both opencv distributions arrive through dependencies and share one folder: the last one written counts. The GUI one
# needs libGL, which servers lack, so the headless one is written again where cv2 does not import.
define fix_opencv
"$(@D)/bin/python" -c 'import cv2' 2>/dev/null || \
  "$(@D)/bin/python" $(PIP_INSTALL) --force-reinstall --no-deps opencv-python-headless
endef

.PHONY: help setup demo test test-fast test-full test-gpu-standin test-faults test-slurm test-upstream gpu-bench docs doctor lint format wheel clean distclean

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24
	@echo; echo '  PYTHON=python3.12 chooses the interpreter of a new environment, TESTS=tests/compat the tests to run,'
	@echo '  WORKERS=0 runs them in one process, where a debugger works'

$(VENV)/.ready: constraints.txt pyproject.toml
	@rm -f $@
	@$(make_venv)
	@echo 'Installing from constraints.txt (a few minutes on the first run)'
	@$(@D)/bin/python $(PIP_INSTALL) --upgrade pip setuptools wheel
	@$(@D)/bin/python $(PIP_INSTALL) -e '.[test]'
	@$(fix_opencv)
	@touch $@

setup: $(VENV)/.ready  ## .venv with everything from constraints.txt

demo: $(VENV)/.ready  ## pretrain, probes, fine-tune, detection and a report on embedded data (CPU, about 9 minutes)
	$(VENV)/bin/python tools/make_demo_data.py
	$(VENV)/bin/python tools/transfer.py configs/chains/demo.py --jobs 2
	@echo "The page: $(CURDIR)/work_dirs/demo/report.html"

test: $(VENV)/.ready  ## the tests
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) $(TESTS)

test-fast: $(VENV)/.ready  ## those that start no process and train no run: three minutes
	$(VENV)/bin/python -m pytest $(SIDE_BY_SIDE) -m 'not full and not process and not slow' $(TESTS)

test-full: $(VENV)/.ready  ## the wheel by pip, and every recipe at real size, two iterations each where memory allows (hours)
	$(VENV)/bin/python -m pytest -m full $(or $(TESTS),tests/packaging/test_declared_dependencies.py tests/recipes/test_recipes_full.py)

test-gpu-standin: $(VENV)/.ready  ## recipes of every family on a CUDA device that computes nothing (gcc, nm; a CUDA torch)
	$(VENV)/bin/python -m pytest -m 'full or not full' $(or $(TESTS),tests/gpu_standin)

test-faults: $(VENV)/.ready  ## kills, signals, full disks, damaged files, NaN ...: TRIALS=5 of each kind, ONLY='kills nan'
	TRIALS=$(or $(TRIALS),5) $(VENV)/bin/python -m pytest -q tests/data/test_coco_mutated.py tests/report/test_mutated_runs.py
	$(VENV)/bin/python tests/faults/run.py --trials $(or $(TRIALS),5) $(ONLY)

test-slurm: $(VENV)/.ready  ## the tests against a real Slurm, private to this call (root; slurm-wlm, munge)
	tests/slurm/private_slurm.sh $(VENV)/bin/python -m pytest $(or $(TESTS),tests/slurm)

# On a node without internet: PYTHON=python3, with the packages of tools/wheelhouse.sh.
gpu-bench:  ## speed on one GPU, ten minutes; OUT=folder IMAGES=folder (docs/speed.md)
	$(or $(PYTHON),python3) tools/gpu_bench.py $(or $(OUT),work_dirs/gpu_bench) $(if $(IMAGES),--images $(IMAGES))

$(UPSTREAM)/.ready: constraints.txt constraints-upstream.txt pyproject.toml
	@rm -f $@
	@$(make_venv)
	@echo 'Installing the last upstream releases'
	@$(@D)/bin/python $(PIP_INSTALL) --upgrade pip setuptools wheel
	@$(@D)/bin/python $(PIP_INSTALL) torch torchvision numpy
	@$(@D)/bin/python $(PIP_INSTALL) --no-build-isolation -c constraints-upstream.txt \
	  mmengine mmcv-lite mmpretrain mmdet pycocotools safetensors tifffile scikit-learn matplotlib pytest pytest-xdist timm
	@$(@D)/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@$(fix_opencv)
	@touch $@

test-upstream: $(UPSTREAM)/.ready  ## the tests on mmengine 0.10.7, mmcv-lite 2.1.0, mmpretrain 1.2.0, mmdet 3.3.0
	$(UPSTREAM)/bin/python -m pytest $(SIDE_BY_SIDE) $(TESTS)

$(DOCS)/.ready: pyproject.toml
	@rm -f $@
	@$(make_venv)
	@$(@D)/bin/python -m pip install --quiet 'mkdocs-material>=9.5'
	@touch $@

docs: $(DOCS)/.ready  ## site/: the documents as a site (mkdocs-material); a link that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

doctor: $(VENV)/.ready  ## what is installed, what is missing, and the fix
	$(VENV)/bin/python tools/doctor.py

lint: $(VENV)/.ready  ## ruff: rules and layout (make format mends the layout)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)

format: $(VENV)/.ready  ## ruff lays out the code and mends what it can
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

wheel: $(VENV)/.ready  ## dist/mim_mm-*.whl with configs and tools inside
	@rm -rf build
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

clean:  ## build products and caches
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find mim_mm tools tests configs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## also the environments
	rm -rf $(VENV) $(UPSTREAM) $(DOCS) site
