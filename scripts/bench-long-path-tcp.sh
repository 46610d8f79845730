#!/usr/bin/env bash
# One TCP connection over a long path, direct and through dialback (caller and node on the near side, agent on the far one), in turns.
#   scripts/bench-long-path-tcp.sh [DELAY_MS LOSS_PERCENT RATE_MBIT QUEUE_KB [ROUNDS]]    default: 20 0 1000 5000 3
# As scripts/bench-long-path.sh. Needs iperf3. Builds the release binary unless DIALBACK names one.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || { echo "this needs Linux: it uses network namespaces" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || { echo "this needs root, for network namespaces: run it as root or with sudo" >&2; exit 1; }
bash scripts/needs.sh ip=iproute2 iperf3=iperf3
path=(20 0 1000 5000)
[ $# -lt 4 ] || path=("${@:1:4}")
rounds=${5:-3}
if [ -z "${DIALBACK:-}" ]; then
    DIALBACK=$(cargo build --release --locked --features cli --bin dialback --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
fi
source scripts/bench-programs.sh
source scripts/long-path.sh

work=$(mktemp -d)
cd "$work"
for name in $(env | sed -n 's/^\(DIALBACK_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
"$DIALBACK" certs init >/dev/null
"$DIALBACK" certs issue node edge-1 --san 10.99.0.1 >/dev/null
"$DIALBACK" certs issue agent warehouse >/dev/null
"$DIALBACK" certs issue caller ops >/dev/null
printf '[[allow]]\ncaller = "ops"\nagent = "**"\nmethod = "tcp:*"\n' >rules.toml
# Waits until a log contains a text.
wait_for() { for _ in $(seq 200); do grep -q "$2" "$1" 2>/dev/null && return; sleep 0.1; done; cat "$1" >&2; exit 1; }
ip netns exec "$far" iperf3 -s -p 5201 >/dev/null 2>&1 &
ip netns exec "$near" "$DIALBACK" node --listen 10.99.0.1:4433 --policy rules.toml >node.log 2>&1 &
wait_for node.log "listens on"
ip netns exec "$far" "$DIALBACK" agent --node 10.99.0.1:4433 --tcp iperf=127.0.0.1:5201 >agent.log 2>&1 &
wait_for agent.log registered
ip netns exec "$near" "$DIALBACK" tcp warehouse iperf --node 10.99.0.1:4433 --listen 127.0.0.1:6000 >tcp.log 2>&1 &
wait_for tcp.log "listening on"

# Received Mbit/s, without the first two seconds.
throughput() {
    ip netns exec "$near" iperf3 -J -t 6 -O 2 "$@" |
        sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p' | awk '{ printf "%.0f\n", $1 / 1e6 }'
}
for _ in $(seq "$rounds"); do
    echo "direct: $(throughput -c 10.99.0.2) up, $(throughput -c 10.99.0.2 -R) down; dialback: $(throughput -c 127.0.0.1 -p 6000) up, $(throughput -c 127.0.0.1 -p 6000 -R) down (Mbit/s)"
done
rm -rf "$work"
