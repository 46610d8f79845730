#!/usr/bin/env bash
# Builds the binary and prints its path. The dev profile: its first build takes half the time of a release build, and `make test` uses the
# same one. Cargo itself says where the file is, so that every way of moving the target directory is honoured.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/needs.sh cc=gcc
path=$(cargo build --locked --features cli --bin dialback --message-format=json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$path" ] || { echo "cargo did not say where it put the binary" >&2; exit 1; }
printf '%s\n' "$path"
