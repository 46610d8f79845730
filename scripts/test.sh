#!/usr/bin/env bash
# Runs all tests. Works in a clean clone and without a terminal.
set -euo pipefail
cd "$(dirname "$0")/.."

# Runs one step, and prints its name if it fails.
step() {
    local name=$1 status=0
    shift
    "$@" || status=$?
    [ "$status" -eq 0 ] || { echo "make test: FAILED at the step \"$name\" with exit code $status: $*" >&2; exit "$status"; }
}

# openssl makes certificates like those of other tools; curl calls the HTTP gateway; python3 runs a service that an agent forwards to.
# python3 also runs gRPC and other programs, whose packages pip installs in the target directory.
# node and npm run Connect's official client, which npm installs in the target directory.
# Chromium shows the admin page.
# Go, PostgreSQL and Redis are forwarded through an agent without any support for dialback. Debian installs PostgreSQL's servers outside the PATH.
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)
step "install programs" bash scripts/needs.sh cc=gcc openssl=openssl curl=curl python3=python3 go=golang-go node=nodejs npm=npm psql=postgresql-client initdb=postgresql redis-server=redis-server redis-cli=redis-tools chromium=chromium
step "install Python packages" bash scripts/python-programs.sh
step "download crates" bash scripts/retry.sh cargo fetch --locked
# Unit tests, integration tests over localhost, examples, doc tests. Most of the long ones only wait, so more threads than cores are useful.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}"
step "tests" cargo test --locked --features cli
step "tests over tunnels" bash scripts/test-tunnel.sh
step "validate the OpenAPI document" bash scripts/openapi.sh
step "check the files in deploy" env BINARY="$(realpath -m "${CARGO_TARGET_DIR:-target}")/debug/dialback" bash scripts/check-deploy.sh
# The library alone must build with its default features and with either cryptography library.
step "the library with default features" cargo check --locked --examples
step "the library with aws-lc-rs" cargo check --locked --lib --no-default-features --features aws-lc-rs
step "the library with ring" cargo check --locked --lib --no-default-features --features ring
step "the library with ring and forwards" cargo check --locked --lib --no-default-features --features ring,forward
step "the library with tunnels" cargo check --locked --lib --features tunnel
step "the library with traces" cargo check --locked --lib --features otel
echo "all tests passed; the bare library builds with aws-lc-rs and with ring"
