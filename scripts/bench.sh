#!/usr/bin/env bash
# Builds everything that `make bench` compares and runs it: `scripts/bench.sh [--rounds N] [--millis N] [--loads BYTESxCALLS,...]`.
# Writes docs/benchmarks/calls.json and calls.svg, unless the load was chosen with --loads.
# `scripts/bench.sh growth [--rounds N] [--millis N] [--in-flight N,...] [--agents N,...]` measures dialback alone with more and more calls in flight
# and agents, and writes growth.json and growth.svg, unless counts were chosen. `0` leaves out one of the two.
set -euo pipefail
cd "$(dirname "$0")/.."
unset RUST_BACKTRACE

name=calls command=compare
if [ "${1:-}" = growth ]; then
    name=growth command=growth
    shift
    export PEERS_ALONE=1
    # The most that a configuration file may set.
    export PEERS_CALLS_IN_FLIGHT=${PEERS_CALLS_IN_FLIGHT:-10000}
    # A process has up to 2,500 agents, each with a socket.
    ulimit -n "$(ulimit -Hn)"
fi
source scripts/bench-programs.sh
outputs=(--json "docs/benchmarks/$name.json" --svg "docs/benchmarks/$name.svg")
case " $* " in *" --loads "* | *" --in-flight "* | *" --agents "*) outputs=() ;; esac
exec "$peers" "$command" ${outputs[@]+"${outputs[@]}"} "$@"
