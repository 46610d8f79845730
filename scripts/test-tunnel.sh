#!/usr/bin/env bash
# Runs tests of calls, streams, drains, migration and outcomes with every link in a tunnel: the same tests over another path. Then the outcomes of
# calls whose agents are killed, over UDP that passes for five seconds of ten, with tunnels beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}" DIALBACK_TEST_TUNNEL=1
# Left out: tests of UDP itself, of a path that delays datagrams, and of agents with several nodes, whose tunnels have one URL in these tests.
cargo test --locked --features cli --test it -- \
    call:: streams:: bidirectional:: cancel:: deadline:: shutdown:: outcomes:: limits:: retries:: routing:: migration:: tcp:: \
    --skip over_a_long_path --skip an_agent_whose_socket_becomes_unresponsive --skip a_node_restarts_under_load
DIALBACK_TEST_TUNNEL=auto cargo test --locked --features cli --test it -- outcomes::
