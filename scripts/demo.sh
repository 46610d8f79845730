#!/usr/bin/env bash
# The first contact: a node, an agent and a caller as separate processes on this machine, a call that works and two that are refused.
# Everything lies in a temporary directory and on a free port: certs/ and a node on port 4433 are left alone. Needs bash and coreutils.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh

say "Build the program (the first time this takes a minute or two, then a second)"
binary=$(bash scripts/binary.sh)
in_a_directory_of_its_own
PATH=$(dirname "$binary"):$PATH

say "Make a CA, and certificates for a node, an agent and two callers"
run dialback certs init
run dialback certs issue node edge-1 --san localhost --san 127.0.0.1
run dialback certs issue agent warehouse
run dialback certs issue caller ops
run dialback certs issue caller guest

say "The public side: a node that lets the caller ops call HelloService on any agent, and nothing else"
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

say "The private side: an agent that dials out and hosts HelloService and Demo"
start agent dialback agent --demo --node "$node"
wait_for agent registered

say "A third process calls a service of the agent, through the node"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node" --cert certs/caller-ops.pem
expect_said '"hello:hello"'
echo "    the agent answered:  hello:hello"

say "Who is attached, as ops may see it"
run dialback agents --node "$node" --cert certs/caller-ops.pem
expect_said warehouse

say "Refused: a method that no rule opens"
refused 71 dialback call warehouse Demo/Echo -d '"x"' --node "$node" --cert certs/caller-ops.pem
expect_said PERMISSION_DENIED

say "Refused: a caller that no rule names"
refused 71 dialback call warehouse HelloService/Hello -d '"hello"' --node "$node" --cert certs/caller-guest.pem
expect_said PERMISSION_DENIED

say "Stop both with SIGTERM"
stop agent
stop node
port_is_free "$port"

say "Done: hello:hello went from a caller to an agent that listens on nothing"
