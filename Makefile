# Each target does one job; what is longer than a line stands in scripts/. Cargo's variables (CARGO_TARGET_DIR and the like) are honoured.
# Plain `make` lists the targets.

CARGO ?= cargo
RUN_DIALBACK = $(CARGO) run --quiet --features cli --bin dialback --

.DEFAULT_GOAL := help
.PHONY: bench-http bench-tcp bench-growth bench-long-path bench-in-process help map demo demo-networks test test-tunnel test-long fuzz-http check check-deploy build dist deb install certs certs-renew certs-clean crl node agent bench

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r name what; do printf '  make %-17s %s\n' "$$name" "$$what"; done

demo: ## node, agent and caller as three processes, a call that works and two that are refused
	@bash scripts/demo.sh

demo-networks: ## the same across an office behind NAT, its router and the internet (root, Linux)
	@bash scripts/demo-networks.sh

test: ## everything the tests need, then all tests
	@bash scripts/test.sh

test-tunnel: ## tests of calls, streams, drains and outcomes with every link in a tunnel; part of `make test`
	@bash scripts/test-tunnel.sh

test-long: ## the long forms of some tests, which take minutes and `make test` leaves out
	$(CARGO) test --locked --features cli --test it -- --ignored --nocapture --test-threads 1 --skip pages::a_third_party_validator

fuzz-http: ## the HTTP gateway against schemathesis, by its own OpenAPI document: ten minutes, or SECONDS=60
	@bash scripts/schemathesis.sh $(or $(SECONDS),600)

check: ## what a change has to pass: format, clippy, docs, dependency rules, tests
	@bash scripts/check.sh

check-deploy: ## the units, manifests and settings in deploy/; part of `make test`
	@bash scripts/check-deploy.sh

map: ## write the list of files in ARCHITECTURE.md again, and docs/commands.md
	DIALBACK_WRITE_MAP=1 $(CARGO) test --quiet --locked --features cli --test it structure::map
	DIALBACK_WRITE_MAP=1 $(CARGO) test --quiet --locked --features cli --bin dialback reference::

build: ## the binary as it ships, in the target directory
	$(CARGO) build --release --locked --features cli

deb: ## the Debian package, with cargo-deb, in the target directory
	@bash scripts/deb.sh

dist: ## the files of a release: archive, list of crates, Debian package, checksums, in the target directory
	@bash scripts/dist.sh

install: ## the binary into Cargo's bin directory
	$(CARGO) install --locked --features cli --path .

certs: ## a CA, a node, an agent and a caller in certs/ for this machine; keeps what is good
	@bash scripts/certs.sh

certs-renew: ## make again what is in the last third of its life in certs/, and the revocation list if that is due
	$(RUN_DIALBACK) certs renew

crl: ## sign the revocation list in certs/ again, with the next number
	$(RUN_DIALBACK) certs crl

certs-clean: ## remove what `make certs` generated, and nothing else
	@bash scripts/certs-clean.sh

node: ## run a node on port 4433 (after `make certs`)
	$(RUN_DIALBACK) node --config examples/first/node.toml

agent: ## run an agent with the demo services (after `make certs`, next to `make node`)
	$(RUN_DIALBACK) agent --config examples/first/agent.toml

bench: ## calls through dialback next to raw QUIC, Go, tonic and NATS, as ratios; BENCH="--rounds 5" passes options
	@bash scripts/bench.sh $(BENCH)

bench-growth: ## calls a second and p99 with 1 to 10,000 calls in flight and agents, over 10 minutes; BENCH passes options
	@bash scripts/bench.sh growth $(BENCH)

bench-long-path: ## the same over an emulated path of 40 ms with 1 % loss (root, Linux)
	@bash scripts/bench-long-path.sh

bench-in-process: ## calls next to raw QUIC streams in one process, for profiles of one change
	$(CARGO) bench --features cli --bench calls

bench-http: ## HTTP requests to nginx through dialback next to rathole and direct, as ratios
	@bash benches/http.sh

bench-tcp: ## TCP connections through dialback next to a plain relay and rathole, as ratios
	@bash benches/tcp.sh
