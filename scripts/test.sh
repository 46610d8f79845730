#!/usr/bin/env bash
# All tests, from a clean clone, without a terminal.
set -euo pipefail
cd "$(dirname "$0")/.."

# openssl makes certificates for the tests, as other tools make them; curl asks the HTTP door; python3 runs a service that an agent forwards to.
# node and npm run Connect's own client, which npm installs below the target directory.
# Programs that know nothing of dialback are led through an agent. Debian keeps PostgreSQL's servers beside the PATH.
PATH=$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)
bash scripts/needs.sh cc=gcc openssl=openssl curl=curl python3=python3 go=golang-go node=nodejs npm=npm psql=postgresql-client initdb=postgresql redis-server=redis-server redis-cli=redis-tools
# Unit tests, integration tests over localhost, examples, doc tests. Most of the long ones only wait, so more run at once than there are cores.
RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}" cargo test --locked
bash scripts/openapi.sh
# The bare library builds alone, with either cryptography.
cargo check --locked --lib --no-default-features --features aws-lc-rs
cargo check --locked --lib --no-default-features --features ring
cargo check --locked --lib --no-default-features --features ring,forward
echo "all tests passed; the bare library builds with aws-lc-rs and with ring"
