#!/usr/bin/env bash
# Builds the binary and prints its path. Uses the dev profile: its first build takes half the time of a release build, and `make test` uses it
# too. The path is read from cargo's output, so any setting of the target directory works.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/needs.sh cc=gcc
path=$(cargo build --locked --features cli --bin dialback --message-format=json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$path" ] || { echo "cargo did not report the path of the binary" >&2; exit 1; }
printf '%s\n' "$path"
