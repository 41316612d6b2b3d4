# `make` without a target lists the targets.

prefix ?= /usr/local
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
bashdir ?= $(prefix)/share/bash-completion/completions
zshdir ?= $(prefix)/share/zsh/site-functions
fishdir ?= $(prefix)/share/fish/vendor_completions.d

CARGO ?= cargo
INSTALL ?= install
target := $(or $(CARGO_TARGET_DIR),target)
binary := $(target)/release/sha-api

# Static binary for packages. PROFILE=quick builds it faster.
PROFILE ?= release
triple := $(shell uname -m)-unknown-linux-musl
packages := $(target)/$(triple)/$(PROFILE)
static := $(packages)/sha-api
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)

.PHONY: help build static test test-faults test-cluster lint bench bench-http bench-cli bench-docs \
    bench-build fuzz soak man completions session run image deb install \
    install-files uninstall clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## the release binary
	$(CARGO) build --release --locked

static: ## a static release binary for any Linux of this architecture
	@command -v musl-gcc > /dev/null || { echo 'musl-gcc not found; install the Debian package musl-tools' >&2; exit 1; }
	@test -d "$$(rustc --print target-libdir --target $(triple))" || \
	    { echo 'Rust target not installed; run: rustup target add $(triple)' >&2; exit 1; }
	$(CARGO) build --profile $(PROFILE) --locked --target $(triple)

test: ## all tests; lists those that were skipped
	@rm -f $(target)/tmp/skipped
	@$(CARGO) test --locked; status=$$?; \
	    if [ -e $(target)/tmp/skipped ]; then echo 'skipped tests:'; sort -u $(target)/tmp/skipped; fi; exit $$status

# Needs root, loop devices, mkfs.ext4, mkfs.xfs, xfs_io, strace, setpriv, timeout and faketime. Reports skipped tests.
test-faults: ## power cuts, kills, full and failing disks, damaged files; prints a table of results
	@rm -f $(target)/tmp/faults
	@$(CARGO) test --locked --test promises -- --ignored --nocapture --test-threads 1 faults:: ; \
	    status=$$?; echo; cat $(target)/tmp/faults; exit $$status

# Needs PostgreSQL and nginx.
test-cluster: ## servers killed and drained behind nginx; prints the throughput of 1 to 3 servers
	@rm -f $(target)/tmp/cluster
	@$(CARGO) test --locked --test promises -- --ignored --nocapture --test-threads 1 instances:: ; \
	    status=$$?; echo; cat $(target)/tmp/cluster; exit $$status

lint: ## formatting, clippy, rustdoc and wording; every warning is an error
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --document-private-items
	.ci/wording
	@if command -v cargo-deny > /dev/null; then $(CARGO) deny --offline check bans licenses sources; \
	    else echo 'cargo-deny is not installed: licences and versions of crates are not checked'; fi

# Stores are created in $(BENCH_DIR), which must be on the disk under test. BENCH_ROUNDS (5), BENCH_MILLIS (2000 per
# measurement) and BENCH_PERCENT (100, of all sizes) change the length of a run. BENCH_QUICK=1 only checks that the
# benchmarks work, in minutes.
BENCH_DIR ?= $(target)/bench
bench_results = $(if $(BENCH_QUICK),$(BENCH_DIR)/quick,benches/results)
bench_run = $(target)/release/sha-api-bench $(1) $(binary) $(BENCH_DIR) $(bench_results)

bench-build: build
	$(CARGO) build --release --locked --manifest-path benches/Cargo.toml --target-dir $(target)

bench: bench-build ## the store as a library compared with fjall and redb, and its growth
	$(call bench_run,store)
	$(call bench_run,growth)

bench-http: bench-build ## the server compared with nginx, Redis, the Python ancestor and docker-registry
	$(call bench_run,http)

bench-cli: bench-build ## commands compared with git, fjall and sha256sum
	$(call bench_run,cli)

bench-docs: bench-build ## saved results into docs/benchmarks.md and benches/results/speed.svg
	$(target)/release/sha-api-bench docs benches/results

# Needs a nightly toolchain and `cargo install cargo-fuzz`. New inputs are saved outside the source tree.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= request log index token_file import
fuzz: ## fuzz each parser of FUZZ_TARGETS for FUZZ_SECONDS
	@set -e; for name in $(FUZZ_TARGETS); do \
	    mkdir -p $(target)/fuzz-corpus/$$name; \
	    $(CARGO) +nightly fuzz run --target-dir $(target)/fuzz $$name $(target)/fuzz-corpus/$$name \
	        fuzz/corpus/$$name -- -max_total_time=$(FUZZ_SECONDS) -max_len=20000 -malloc_limit_mb=8192; done

export SOAK_SECONDS ?= 600
soak: ## mixed and broken load for SOAK_SECONDS; fails if memory, files or threads grow
	$(CARGO) test --locked --test promises -- --ignored --exact --nocapture soak::nothing_grows_under_mixed_load

man: build ## generate man/
	rm -f man/*.1
	$(binary) man --dir man

completions: build ## generate completions/
	$(binary) completions bash > completions/sha-api.bash
	$(binary) completions zsh > completions/_sha-api
	$(binary) completions fish > completions/sha-api.fish

session: build ## draw docs/session.svg from the output of the program
	docs/session.py $(binary) > docs/session.svg

# The store and the self-signed certificate are in a directory that `make clean` removes.
run: export SHA_API_STORE ?= $(target)/run
run: build ## serve with a self-signed certificate
	@echo 'in another terminal, run:'
	@echo "  curl --cacert $$SHA_API_STORE/tls/cert.pem -H 'Content-Type: application/json' -d '{\"message\": \"foo\"}' https://localhost:8443/messages"
	@echo "  curl --cacert $$SHA_API_STORE/tls/cert.pem https://localhost:8443/messages/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
	@echo "  curl --cacert $$SHA_API_STORE/tls/cert.pem https://localhost:8443/messages/$$(printf 'a%.0s' $$(seq 64))"
	$(binary) serve

# The default image format of buildah and podman does not support health checks, so the format is set below.
ENGINE ?= $(firstword $(foreach tool,buildah podman docker,$(shell command -v $(tool))))
image: static ## a container image of the static binary; uses buildah, podman or docker
	@test -n "$(ENGINE)" || { echo 'buildah, podman or docker not found' >&2; exit 1; }
	rm -rf $(packages)/image
	mkdir -p $(packages)/image/data
	cp $(static) deploy/image.toml $(packages)/image
	$(ENGINE) build $(if $(filter docker,$(notdir $(ENGINE))),,--format docker) --tag sha-api:$(version) \
	    --tag sha-api:latest --file deploy/Dockerfile $(packages)/image

deb: static ## a Debian package of the static binary, with a service
	@command -v dpkg-deb > /dev/null || { echo 'dpkg-deb not found' >&2; exit 1; }
	deploy/deb.sh $(static) $(packages)

install: build install-files ## install into $(DESTDIR)$(prefix)

install-files:
	$(INSTALL) -D -m 755 $(binary) $(DESTDIR)$(bindir)/sha-api
	for page in man/*.1; do $(INSTALL) -D -m 644 $$page $(DESTDIR)$(mandir)/man1/$${page#man/}; done
	$(INSTALL) -D -m 644 completions/sha-api.bash $(DESTDIR)$(bashdir)/sha-api
	$(INSTALL) -D -m 644 completions/_sha-api $(DESTDIR)$(zshdir)/_sha-api
	$(INSTALL) -D -m 644 completions/sha-api.fish $(DESTDIR)$(fishdir)/sha-api.fish

uninstall: ## remove the installed files
	rm -f $(DESTDIR)$(bindir)/sha-api $(DESTDIR)$(bashdir)/sha-api
	rm -f $(DESTDIR)$(zshdir)/_sha-api $(DESTDIR)$(fishdir)/sha-api.fish
	for page in man/*.1; do rm -f $(DESTDIR)$(mandir)/man1/$${page#man/}; done

clean: ## remove all build products
	$(CARGO) clean
