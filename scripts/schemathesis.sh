#!/usr/bin/env bash
# Sends requests to the HTTP gateway that its OpenAPI document allows, and others that it does not, for a number of seconds:
# `schemathesis.sh [SECONDS]`, default 60.
# A node and an agent with the demo services run on free ports in a temporary directory. schemathesis is installed once with pip in the target
# directory. DIALBACK selects another binary than the one that is built here; SCHEMATHESIS_ARGS has further arguments (`--seed 7`).
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/steps.sh

bash scripts/needs.sh cc=gcc curl=curl python3=python3
seconds=${1:-60}
project=$PWD
venv=$(realpath -m "${CARGO_TARGET_DIR:-target}")/schemathesis
python3 -c 'import ensurepip' 2>/dev/null || bash scripts/needs.sh python3-ensurepip=python3-venv
if [ ! -x "$venv/bin/schemathesis" ]; then
    heading "Install schemathesis in the target directory (once)"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5 cbor2==6.3.0
fi
binary=${DIALBACK:-$(bash scripts/binary.sh)}
binary=$(realpath "$binary")

heading "A node with an HTTP gateway, and an agent with the demo services"
use_temporary_directory
PATH=$(dirname "$binary"):$PATH
"$binary" certs init >/dev/null
"$binary" certs issue node edge-1 --san localhost --san 127.0.0.1 >/dev/null
"$binary" certs issue agent warehouse >/dev/null
token=$("$binary" token create ops --ttl 1d --file tokens)
printf 'Authorization: Bearer %s\n' "$token" >header
# timeout_max ends every call within half a second. trusted_proxy: each test case has another address in X-Forwarded-For, because wrong tokens
# are counted per address. resets_max: schemathesis resets long streams.
cat >node.toml <<'TOML'
listen = "127.0.0.1:0"

[gateway]
listen = "127.0.0.1:0"
tokens = "tokens"
trusted_proxy = ["127.0.0.1"]

[limits]
resets_max = 100000

[[allow]]
caller = "ops"
agent = "**"
method = "*/*"
timeout_max = "500ms"

[[host]]
agent = "**"
service = "**"
TOML
start node "$binary" node --config node.toml
wait_for node "the gateway listens on"
node=$(sed -n 's/.* listens on \(127[0-9.:]*\)$/\1/p' node.log | head -n 1)
gateway=$(sed -n 's/.*the gateway listens on \(http[^ ]*\)$/\1/p' node.log)
start agent "$binary" agent --demo --ledger ledger --node "$node"
wait_for agent registered

heading "Run schemathesis for $seconds s"
status=0
# All checks are on by default; `--checks all` would override the settings of single methods.
# shellcheck disable=SC2086 # it may have several arguments
PYTHONPATH=$project/scripts/schemathesis SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 \
    "$venv/bin/schemathesis" --config-file "$project/scripts/schemathesis/schemathesis.toml" run "$gateway/v1/openapi.json" \
    --header "Authorization: Bearer $token" --max-time "$seconds" ${SCHEMATHESIS_ARGS:-} || status=$?

heading "Both processes still run, and a call works"
kill -0 "$pid_of_node" || fail "the node has ended"
kill -0 "$pid_of_agent" || fail "the agent has ended"
run curl -s -m 10 --json '"again"' -H @header "$gateway/v1/agents/warehouse/HelloService/Hello"
expect_output '"hello:again"'
stop agent
stop node
[ "$status" -eq 0 ] || { printf '\nschemathesis found faults (exit code %d)\n' "$status" >&2; exit 1; }
