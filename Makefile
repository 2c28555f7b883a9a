# What people type. Every target installs what it misses (Debian 12) and can be run again at any time.
SHELL := /bin/sh
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin
TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
FUZZ_SECONDS ?= 20

.PHONY: help run demo test check bench fuzz setup clean-cache

help:
	@echo 'make run    a three-node Galera cluster with belay in front, until Ctrl-C'
	@echo 'make demo   the same under load, while nodes are killed; ends by itself, with a verdict'
	@echo 'make test   all tests, on real servers too'
	@echo 'make check  formatting, lints, house rules'
	@echo 'make bench  belay beside HAProxy and beside a direct connection'
	@echo 'make fuzz   each fuzz target for FUZZ_SECONDS (20)'

setup:
	@integration/setup.sh

run:
	@integration/setup.sh run
	cargo build --release -p belay -p belay-integration --bin belay --bin run
	@exec $(TARGET)/release/run

demo:
	@integration/setup.sh run
	cargo build --release -p belay -p belay-integration --bin belay --bin demo
	@ulimit -n $$(ulimit -Hn); BELAY_BIN=$(TARGET)/release/belay exec $(TARGET)/release/demo $(DEMO_ARGS)

test: setup
	@integration/test.sh

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --test tidy

bench: setup
	cargo build --release -p belay -p belay-integration --bin belay --bin bench
	@ulimit -n $$(ulimit -Hn); exec $(TARGET)/release/bench $(BENCH_ARGS)

fuzz:
	@FUZZ_SECONDS=$(FUZZ_SECONDS) integration/fuzz.sh

clean-cache:
	rm -rf $(TARGET)/cache/templates
