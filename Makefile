# On a fresh Debian 12 or 13 machine: `make demo` tells the main job end to end, `make test` runs every test of the
# quick tier. Each installs what it needs (see .ci/setup).

CARGO ?= cargo
BIN := target/debug
export CARGO_TERM_COLOR ?= never

.PHONY: help demo test test-full check bench bench-store deb build setup clean-demo

help:
	@echo "make demo        the main job, end to end: compose, boot, upgrade, roll back (artifacts in target/demo)"
	@echo "make test        every test of the quick tier (JUnit in target/test)"
	@echo "make test-full   the heavy tier as well; SHARDS=\"quick heavy clean-trees scenarios\" chooses"
	@echo "make check       formatting, lints, licences"
	@echo "make bench       speed against the tools a user would otherwise pick"
	@echo "make bench-store  the store's table alone, row by row (BENCH='--runs 3 commit' for some)"
	@echo "make deb         the Debian packages, in target/deb"
	@echo "make clean-demo  removes target/demo and the download cache"

setup:
	@.ci/setup build demo

build: setup
	$(CARGO) build --workspace --locked
	$(CARGO) rustc --locked -p prepare-root --bin slipway-prepare-root -- -C target-feature=+crt-static

deb: build
	compose/deb/build $(BIN) target/deb

demo: deb
	@$(AS_ROOT) $(BIN)/demo

# Composing needs root; sudo is used where we are not.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# The tests need root and are run by cargo: the user's own one, whose files stay the user's.
WITH_CARGO = $(AS_ROOT) env "PATH=$$PATH" "HOME=$$HOME" CARGO=$(CARGO) .ci/give-back

test: deb
	@.ci/setup test
	@$(WITH_CARGO) $(BIN)/suite quick

# In CI each shard can have a machine of its own: `make test-full SHARDS=heavy`.
SHARDS ?= quick heavy clean-trees scenarios
test-full: deb
	@.ci/setup test heavy
	@$(WITH_CARGO) $(BIN)/suite $(SHARDS)

check:
	@.ci/setup build check
	$(CARGO) fmt --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny --log-level error check bans licenses sources

clean-demo:
	$(AS_ROOT) rm -rf target/demo target/cache

bench bench-store:
	@.ci/setup build demo test heavy
	$(CARGO) build --release --locked -p compose
	$(CARGO) build --locked -p vm-tests
	@[ -d target/demo/repo ] || $(MAKE) demo
	@$(AS_ROOT) $(BIN)/bench $(if $(filter bench-store,$@),store) $(BENCH)
