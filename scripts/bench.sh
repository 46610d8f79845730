#!/usr/bin/env bash
# Builds everything that `make bench` compares and runs it: `scripts/bench.sh [--rounds N] [--millis N] [--loads BYTESxCALLS,...]`.
# Writes docs/benchmarks/calls.json and calls.svg, unless the load was chosen with --loads.
set -euo pipefail
cd "$(dirname "$0")/.."
unset RUST_BACKTRACE

source scripts/bench-programs.sh
outputs=(--json docs/benchmarks/calls.json --svg docs/benchmarks/calls.svg)
case " $* " in *" --loads "*) outputs=() ;; esac
exec "$peers" compare ${outputs[@]+"${outputs[@]}"} "$@"
