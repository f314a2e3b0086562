# What a developer, an operator who tries the suite, and CI type; `make` lists it.

empty :=
space := $(empty) $(empty)
PYTHON := /usr/bin/python3
RUFF_VERSION := 0.17.6
CACHE := build/cache-$(shell id -u)

# The components' Python packages, each in its component's folder; pyproject.toml names the same.
PACKAGES := snf-ganeti-common/snf_ganeti snf-ganeti-hooks/snf_ganeti_hooks \
	snf-image-helper/snf_image_helper \
	snf-image-host/snf_image_host snf-ganeti-eventd/snf_ganeti_eventd \
	vncauthproxy/vncauthproxy ext-storage-rados/ext_storage_rados
PYTHONPATH := $(subst $(space),:,$(patsubst %/,%,$(dir $(PACKAGES))) tests)
RUFF := build/lint/bin/ruff
PYTEST := $(PYTHON) -m pytest -o cache_dir=$(CACHE)/pytest
export PYTHONDONTWRITEBYTECODE := 1
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/$(CACHE)/hypothesis
# Debian's users don't have them; sfdisk, mke2fs and others that need no root are there.
export PATH := $(PATH):/usr/sbin:/sbin

# A part is a name in tests/: a folder, or test files named after it. These are groups of parts.
PARTS_image := snf_image_host snf_image_helper image image_copy images jail helper deploy inspect os_scripts \
	create backup check guests guest filesystem hostile
PARTS_network := snf_ganeti_hooks network
PARTS_hostile := hostile death
PARTS_rados := ext_storage_rados rados
PARTS_package := package packages
PARTS_console := vncauthproxy console
PARTS_events := snf_ganeti_eventd events
PART :=
NAMES := $(or $(PARTS_$(PART)),$(subst -,_,$(PART)))
TESTS := $(sort $(wildcard $(foreach name,$(NAMES),tests/$(name) tests/*/$(name) \
	tests/*/test_$(name).py tests/*/test_$(name)_*.py)))

help:
	@echo 'make check           lint, types, unit and contract tests: no root, under a minute'
	@echo 'sudo make test       everything, on real services; PART=name runs one part'
	@echo 'sudo make soak       the same, with the long runs; PART=name, too'
	@echo 'sudo make demo       a Ganeti cluster that deploys an image; demo-down ends it'
	@echo 'sudo make bench      the benchmarks, side by side with their peers'
	@echo 'sudo make fuzz       images harmed at random, FUZZ_SECONDS=3600 FUZZ_SEED=…'
	@echo 'make deb             the Debian packages, in build/deb/'
	@echo 'make clean           remove build/'

check: lint types
	@tests/install-packages check
	@$(PYTEST) --quiet tests/unit tests/contract

lint: $(RUFF)
	@$(RUFF) check --quiet --cache-dir $(CACHE)/ruff .
	@$(RUFF) format --quiet --check --cache-dir $(CACHE)/ruff .

types: | build
	@tests/install-packages check
	@$(PYTHON) -m mypy --cache-dir $(CACHE)/mypy --no-error-summary $(PACKAGES) tests

test: need-root
	@tests/install-packages lint check deb test runtime
	@$(if $(PART),$(if $(TESTS),,echo "error: no part named $(PART) in tests/" >&2; exit 1),:)
	@$(MAKE) --no-print-directory $(if $(PART),,lint types) deb
	@$(PYTEST) $(TESTS)

soak: need-root
	@SNF_SOAK=1 $(MAKE) --no-print-directory test PART=$(PART)

fuzz: need-root
	@tests/install-packages deb test runtime
	@$(MAKE) --no-print-directory deb
	@SNF_FUZZ_SECONDS=$(or $(FUZZ_SECONDS),3600) SNF_FUZZ_SEED=$(FUZZ_SEED) $(PYTEST) \
		tests/integration/test_hostile_random.py

deb: | build
	@tests/install-packages deb
	@debian/build-deb

demo: need-root
	@tests/install-packages deb test runtime
	@$(MAKE) --no-print-directory deb
	@PYTHONPATH=$(PYTHONPATH) $(PYTHON) -m testbed.demo up

demo-down: need-root
	@PYTHONPATH=$(PYTHONPATH) $(PYTHON) -m testbed.demo down

bench: need-root
	@tests/install-packages deb test bench runtime
	@$(MAKE) --no-print-directory deb
	@PYTHONPATH=$(PYTHONPATH) $(PYTHON) -m bench

clean:
	rm -rf build
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

need-root:
	@[ "$$(id -u)" = 0 ] || { echo 'error: this needs root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }

# Under sudo build/ still belongs to whoever typed it, so that `make check` works without.
build:
	@install --directory --owner="$${SUDO_UID:-$$(id -u)}" --group="$${SUDO_GID:-$$(id -g)}" $@

$(RUFF): Makefile | build
	@tests/install-packages lint
	@$(PYTHON) -m venv --clear build/lint
	@build/lint/bin/pip install --quiet --disable-pip-version-check ruff==$(RUFF_VERSION)
	@touch $@

.PHONY: help check lint types test soak fuzz deb demo demo-down bench clean need-root
