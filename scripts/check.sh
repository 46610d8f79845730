#!/usr/bin/env bash
# Runs the checks that a change must pass, the quick ones first.
set -euo pipefail
cd "$(dirname "$0")/.."
heading() { printf '\n== %s\n' "$*"; }

heading "format"
cargo fmt --check

heading "dependency rules"
if ! cargo deny --version >/dev/null 2>&1; then
    echo "cargo-deny is missing; building it takes several minutes, once"
    cargo install --locked cargo-deny
fi
cargo deny --log-level error check bans licenses sources
if timeout 120 cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check advisories
else
    echo "advisories were NOT checked: the advisory database cannot be reached"
fi

heading "clippy"
cargo clippy --locked --all-targets --features cli -- -D warnings
cargo clippy --locked --lib --no-default-features --features ring -- -D warnings
cargo clippy --locked --lib --no-default-features --features aws-lc-rs,gateway -- -D warnings
cargo clippy --locked --lib --features qlog -- -D warnings

heading "docs"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features cli

heading "tests"
bash scripts/test.sh
