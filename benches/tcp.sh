#!/usr/bin/env bash
# Compares a TCP connection through dialback (caller, node, agent: three processes, two encrypted links) with other paths on the same machine,
# interleaved in one run: only the ratios count.
#
#   direct   no relay at all: the limit of the machine
#   socat    one process that copies, without encryption
#   rathole  two processes; its Noise transport, so that it encrypts too (once). Only if `rathole` is in the PATH or RATHOLE names it
#
# `benches/tcp.sh [ROUNDS]`; needs iperf3, redis-server, redis-tools, socat. Builds the release binary unless DIALBACK names one.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5} seconds=${SECONDS_EACH:-3}
bash scripts/needs.sh iperf3=iperf3 redis-server=redis-server redis-benchmark=redis-tools socat=socat
if [ -z "${DIALBACK:-}" ]; then
    DIALBACK=$(cargo build --release --locked --features cli --bin dialback --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
fi
rathole=${RATHOLE:-$(command -v rathole || true)}

work=$(mktemp -d) pids=()
clean_up() {
    # Otherwise the shell reports each killed process.
    exec 2>/dev/null
    for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
in_background() { "$@" >>"$work/log" 2>&1 </dev/null & pids+=($!); }
# Waits until a log contains a text.
wait_for() { for _ in $(seq 200); do grep -q "$2" "$work/$1" 2>/dev/null && return; sleep 0.1; done; cat "$work/$1" >&2; exit 1; }

free=41000
port() { free=$((free + 1)); while ss -Hltn "sport = :$free" 2>/dev/null | grep -q .; do free=$((free + 1)); done; printf -v "$1" %s "$free"; }
port iperf; port redis; port socat_iperf; port socat_redis; port control; port rat_iperf; port rat_redis

in_background iperf3 -s -B 127.0.0.1 -p "$iperf"
in_background redis-server --port "$redis" --bind 127.0.0.1 --save '' --dir "$work"

cd "$work"
for name in $(env | sed -n 's/^\(DIALBACK_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
"$DIALBACK" certs init >/dev/null
"$DIALBACK" certs issue node edge-1 --san localhost --san 127.0.0.1 >/dev/null
"$DIALBACK" certs issue agent warehouse >/dev/null
"$DIALBACK" certs issue caller ops >/dev/null
printf '[[allow]]\ncaller = "ops"\nagent = "**"\nmethod = "tcp:*"\n' >rules.toml
"$DIALBACK" node --listen 127.0.0.1:0 --policy rules.toml >node.log 2>&1 & pids+=($!)
wait_for node.log "listens on"
node=$(sed -n 's/.*listens on \([0-9.:]*\).*/\1/p' node.log | head -n 1)
"$DIALBACK" agent --node "$node" --tcp "iperf=127.0.0.1:$iperf" --tcp "redis=127.0.0.1:$redis" >agent.log 2>&1 & pids+=($!)
wait_for agent.log registered
for name in iperf redis; do
    "$DIALBACK" tcp warehouse "$name" --node "$node" --listen 127.0.0.1:0 >"tcp-$name.log" 2>&1 & pids+=($!)
    wait_for "tcp-$name.log" "listening on"
    printf -v "dialback_$name" %s "$(sed -n 's/^listening on 127.0.0.1:\([0-9]*\)$/\1/p' "tcp-$name.log" | head -n 1)"
done

in_background socat "TCP-LISTEN:$socat_iperf,bind=127.0.0.1,fork,reuseaddr" "TCP:127.0.0.1:$iperf"
in_background socat "TCP-LISTEN:$socat_redis,bind=127.0.0.1,fork,reuseaddr" "TCP:127.0.0.1:$redis"

paths=(direct socat dialback)
if [ -n "$rathole" ]; then
    paths=(direct socat rathole dialback)
    keys=$("$rathole" --genkey)
    private=$(printf '%s\n' "$keys" | sed -n '2p') public=$(printf '%s\n' "$keys" | sed -n '5p')
    cat >rathole.toml <<TOML
[server]
bind_addr = "127.0.0.1:$control"
default_token = "t"
[server.transport]
type = "noise"
[server.transport.noise]
local_private_key = "$private"
[server.services.iperf]
bind_addr = "127.0.0.1:$rat_iperf"
[server.services.redis]
bind_addr = "127.0.0.1:$rat_redis"
[client]
remote_addr = "127.0.0.1:$control"
default_token = "t"
[client.transport]
type = "noise"
[client.transport.noise]
remote_public_key = "$public"
[client.services.iperf]
local_addr = "127.0.0.1:$iperf"
[client.services.redis]
local_addr = "127.0.0.1:$redis"
TOML
    "$rathole" --server rathole.toml >rathole-server.log 2>&1 & pids+=($!)
    "$rathole" --client rathole.toml >rathole-client.log 2>&1 & pids+=($!)
    for _ in $(seq 100); do redis-cli -p "$rat_redis" ping 2>/dev/null | grep -q PONG && break; sleep 0.1; done
fi

port_of() {
    case $1:$2 in
        direct:iperf) echo "$iperf" ;; direct:redis) echo "$redis" ;;
        socat:iperf) echo "$socat_iperf" ;; socat:redis) echo "$socat_redis" ;;
        rathole:iperf) echo "$rat_iperf" ;; rathole:redis) echo "$rat_redis" ;;
        dialback:iperf) echo "$dialback_iperf" ;; dialback:redis) echo "$dialback_redis" ;;
    esac
}
# Received Mbit/s.
throughput() {
    local path=$1
    shift
    iperf3 -J -c 127.0.0.1 -p "$(port_of "$path" iperf)" -t "$seconds" "$@" |
        sed -n '/"sum_received"/,/}/s/.*"bits_per_second":[[:space:]]*\([0-9.e+]*\).*/\1/p' | awk '{ printf "%.0f\n", $1 / 1e6 }'
}
# One CSV line of redis-benchmark: requests per second, latencies in milliseconds.
requests() { redis-benchmark -h 127.0.0.1 -p "$(port_of "$1" redis)" -t get -d 32 --csv -c "$2" -n "$3" | tail -n 1 | tr -d '"'; }
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for ((round = 1; round <= rounds; round++)); do
    for path in "${paths[@]}"; do
        throughput "$path" >>"up.$path"
        throughput "$path" -R >>"down.$path"
        throughput "$path" -P 8 >>"eight.$path"
        requests "$path" 1 3000 | awk -F, '{ print $5 * 1000 }' >>"one.$path"
        requests "$path" 50 20000 | awk -F, '{ print $2 }' >>"fifty.$path"
        echo "round $round: $path done" >&2
    done
done

printf '%-10s %12s %12s %14s %14s %14s\n' '' 'up Mbit/s' 'down Mbit/s' '8 up Mbit/s' 'GET p50 us' '50 conns GET/s'
for path in "${paths[@]}"; do
    printf '%-10s' "$path"
    for what in up down eight one fifty; do printf ' %12s ' "$(median "$what.$path")"; done
    echo
done
for path in "${paths[@]}"; do
    [ "$path" = dialback ] && continue
    printf 'dialback / %-8s' "$path"
    for what in up down eight one fifty; do
        awk -v a="$(median "$what.dialback")" -v b="$(median "$what.$path")" 'BEGIN { printf " %11.2fx ", a / b }'
    done
    echo
done
