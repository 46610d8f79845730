#!/usr/bin/env bash
# Runs a node, an agent and a caller as separate processes on this machine: a call that works and two that are refused.
# Uses a temporary directory and a free port: certs/ and a node on port 4433 are not touched. Needs bash and coreutils.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh

heading "Build the program (the first time this takes a minute or two, then a second)"
binary=$(bash scripts/binary.sh)
use_temporary_directory
PATH=$(dirname "$binary"):$PATH

heading "Make a CA, and certificates for a node, an agent and two callers"
run dialback certs init
run dialback certs issue node edge-1 --san localhost --san 127.0.0.1
run dialback certs issue agent warehouse
run dialback certs issue caller ops
run dialback certs issue caller guest

heading "The public side: a node that lets the caller ops call HelloService on any agent, and nothing else"
cat >node.toml <<'TOML'
listen = "127.0.0.1:0"       # any free port

[[allow]]
caller = "ops"
agent = "**"
method = "HelloService/*"
TOML
show node.toml
start node dialback node --config node.toml
wait_for node "listens on"
port=$(sed -n 's/.*listens on .*:\([0-9][0-9]*\).*/\1/p' node.log | head -n 1)
node=localhost:$port

heading "The private side: an agent that dials out and hosts HelloService and Demo"
start agent dialback agent --demo --node "$node"
wait_for agent registered

heading "A third process calls a service of the agent, through the node"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node" --cert certs/caller-ops.pem
expect_output '"hello:hello"'
echo "    the agent answered:  hello:hello"

heading "List the attached agents that ops may see"
run dialback agents --node "$node" --cert certs/caller-ops.pem
expect_output warehouse

heading "Refused: a method that no rule allows"
refused 71 dialback call warehouse Demo/Echo -d '"x"' --node "$node" --cert certs/caller-ops.pem
expect_output PERMISSION_DENIED

heading "Refused: a caller that no rule names"
refused 71 dialback call warehouse HelloService/Hello -d '"hello"' --node "$node" --cert certs/caller-guest.pem
expect_output PERMISSION_DENIED

heading "Stop both with SIGTERM"
stop agent
stop node
port_is_free "$port"

heading "Done: a caller got hello:hello from an agent that accepts no connections"
