#!/usr/bin/env bash
# The comparison of `make bench` over a long path: two network namespaces that a program joins, which delays, drops and shapes packets.
#   scripts/bench-long-path.sh [DELAY_MS LOSS_PERCENT RATE_MBIT QUEUE_KB [OPTION...]]    default: 20 1 100 500
# The delay is one way. Options are those of `dialback-peers compare`. TCP_CONGESTION chooses TCP's control in both namespaces.
# Needs root, because it creates network namespaces and TUN devices.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || { echo "make bench-long-path needs Linux: it uses network namespaces" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || { echo "make bench-long-path needs root, for network namespaces: run it as root or with sudo" >&2; exit 1; }
bash scripts/needs.sh ip=iproute2
path=(20 1 100 500)
if [ $# -ge 4 ]; then
    path=("${@:1:4}")
    shift 4
fi
source scripts/bench-programs.sh

near=near-$$ far=far-$$ control=
clean_up() {
    [ -z "$control" ] || exec {control}>&-
    wait || true
    ip netns delete "$near" 2>/dev/null || true
    ip netns delete "$far" 2>/dev/null || true
}
trap clean_up EXIT
trap 'exit 130' INT TERM

ip netns add "$near"
ip netns add "$far"
# The program ends when its standard input does.
exec {control}> >(exec "$peers" path "n$$" "f$$" "${path[@]}" >/dev/null)
for _ in $(seq 100); do ip link show "f$$" >/dev/null 2>&1 && break; sleep 0.05; done
ip link set "n$$" netns "$near"
ip link set "f$$" netns "$far"
join() {
    local namespace=$1 device=$2 address=$3
    ip -n "$namespace" link set lo up
    ip -n "$namespace" address add "$address/24" dev "$device"
    ip -n "$namespace" link set "$device" mtu 1500 txqueuelen 10000 up
    ip netns exec "$namespace" sysctl -qw net.ipv4.tcp_congestion_control="${TCP_CONGESTION:-bbr}" net.ipv4.tcp_rmem="4096 131072 33554432" net.ipv4.tcp_wmem="4096 131072 33554432"
}
join "$near" "n$$" 10.99.0.1
join "$far" "f$$" 10.99.0.2
echo "path: ${path[0]} ms each way, ${path[1]} % loss, ${path[2]} Mbit/s, queue ${path[3]} KB; TCP: ${TCP_CONGESTION:-bbr}"
PEERS_NEAR=$near PEERS_FAR=$far "$peers" compare ${@:---loads 4096x64,1048576x4}
