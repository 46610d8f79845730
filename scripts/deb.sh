#!/usr/bin/env bash
# Builds the Debian package in target/dist, with cargo-deb. Its file name has the version and the architecture.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deb --version >/dev/null 2>&1 || { echo "cargo-deb is missing: cargo install --locked cargo-deb" >&2; exit 1; }
bash scripts/package-files.sh >/dev/null
dist="$(realpath -m "${CARGO_TARGET_DIR:-target}")/dist"
mkdir -p "$dist"
cargo deb --locked --no-build --quiet --output "$dist/"
