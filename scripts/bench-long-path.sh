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

source scripts/long-path.sh
[ $# -gt 0 ] || set -- --loads 4096x64,1048576x4
PEERS_NEAR=$near PEERS_FAR=$far "$peers" compare "$@"
