#!/usr/bin/env bash
# Runs the demo across three networks on this machine: an office behind NAT that accepts nothing from outside, its router, and the internet.
#
#     office: agent 10.77.1.2 ---- 10.77.1.1 router 198.51.100.1 ---- 198.51.100.2 internet: node, caller
#
# Needs root, because it creates network namespaces. Their names contain the ID of this process, and they are deleted at the end, even after a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || { echo "make demo-networks needs Linux: it uses network namespaces" >&2; exit 1; }
[ "$(id -u)" -eq 0 ] || { echo "make demo-networks needs root, for network namespaces: run it as root or with sudo" >&2; exit 1; }
bash scripts/needs.sh cc=gcc ip=iproute2 ss=iproute2 nft=nftables
source scripts/steps.sh

office=office-$$ router=router-$$ internet=internet-$$
office_address=10.77.1.2 router_address=198.51.100.1 node_address=198.51.100.2 port=4433

clean_up_more() {
    local name
    for name in "$office" "$router" "$internet"; do
        if ip netns list | grep -q "^$name\b"; then ip netns delete "$name"; fi
    done
}

use_namespace() {
    command_prefix=(ip netns exec "$1")
    printf '  [%s]\n' "${1%-*}"
}

heading "Build the program (the first time this takes a minute or two, then a second)"
binary=$(bash scripts/binary.sh)
use_temporary_directory
PATH=$(dirname "$binary"):$PATH

heading "Three networks: the office, its router with NAT, the internet"
for name in "$office" "$router" "$internet"; do
    ip netns add "$name"
    ip -n "$name" link set lo up
done
ip link add "o$$" netns "$office" type veth peer name "i$$" netns "$router"
ip link add "e$$" netns "$router" type veth peer name "n$$" netns "$internet"
ip -n "$office" address add "$office_address/24" dev "o$$"
ip -n "$router" address add 10.77.1.1/24 dev "i$$"
ip -n "$router" address add "$router_address/24" dev "e$$"
ip -n "$internet" address add "$node_address/24" dev "n$$"
ip -n "$office" link set "o$$" up
ip -n "$router" link set "i$$" up
ip -n "$router" link set "e$$" up
ip -n "$internet" link set "n$$" up
ip -n "$office" route add default via 10.77.1.1
# The internet has a route to the office, so only the firewall blocks it.
ip -n "$internet" route add 10.77.1.0/24 via "$router_address"
ip netns exec "$router" bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
cat >firewall.nft <<NFT
table ip office {
    counter refused { }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "i$$" accept
        counter name refused drop
    }
    chain input {
        type filter hook input priority 0; policy drop;
        iifname { "lo", "i$$" } accept
        ct state established,related accept
    }
    chain leave {
        type nat hook postrouting priority 100;
        oifname "e$$" masquerade
    }
}
NFT
show firewall.nft
ip netns exec "$router" nft -f firewall.nft

heading "Make a CA, and certificates for the node (for its address), an agent and a caller"
run dialback certs init
run dialback certs issue node edge-1 --san "$node_address"
run dialback certs issue agent warehouse
run dialback certs issue caller ops

heading "On the internet: a node, which also takes links through tunnels over TCP 443"
cat >node.toml <<'TOML'
[[allow]]
caller = "ops"
agent = "**"
method = "HelloService/*"
TOML
show node.toml
use_namespace "$internet"
start node dialback node --config node.toml --listen "0.0.0.0:$port" --tunnel "$node_address:443"
wait_for node "listens on"

heading "In the office: an agent that dials out"
use_namespace "$office"
start agent dialback agent --demo --node "$node_address:$port"
wait_for agent registered

heading "The node sees the router's address, not the agent's"
grep "attached" node.log | sed 's/^/    /'
grep "attached" node.log | grep -q "$router_address" || fail "the node does not see the router's address"

heading "The office has no TCP listener, and one UDP socket: the agent's"
use_namespace "$office"
run ss -H -ltn
[ -z "$output" ] || fail "the office has a TCP listener"
run ss -H -lun
agent_port=$(printf '%s\n' "$output" | sed -n 's/.*:\([0-9][0-9]*\) .*/\1/p' | head -n 1)
[ "$(printf '%s\n' "$output" | wc -l)" -eq 1 ] || fail "the office has more than one UDP socket"
cat <<TEXT
    UDP has no listening state: ss shows every socket that is not connected to one peer. This one has port $agent_port, which the kernel
    chose. It offers no service: QUIC accepts no connections on it, because the agent only dials. The firewall lets only replies of
    the node reach it.
TEXT

heading "The office cannot be reached from the internet: neither its machine nor the agent's socket"
use_namespace "$router"
refused 1 bash -c "exec 3<>/dev/tcp/$office_address/22"
echo "    (from the router, inside, the machine answers: connection refused)"
refused 78 dialback call warehouse HelloService/Hello -d '"hello"' --node "$office_address:$agent_port" --timeout 2s
echo "    (from inside, the agent's socket accepts no connection either)"
use_namespace "$internet"
refused 124 timeout 2 bash -c "exec 3<>/dev/tcp/$office_address/22"
echo "    (from the internet there is no answer)"
run bash -c "echo hello >/dev/udp/$office_address/$agent_port"
use_namespace "$router"
run nft list counter ip office refused
expect_output packets
case $output in *"packets 0 "*) fail "the firewall has counted no packets" ;; esac
echo "    (the firewall has dropped the unsolicited packets from outside)"

heading "A third process, on the internet, calls the agent in the office through the node"
use_namespace "$internet"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node_address:$port"
expect_output '"hello:hello"'
echo "    the agent answered:  hello:hello"
run dialback agents --node "$node_address:$port"
expect_output "$router_address"

heading "The office's firewall drops all UDP from now on: the link goes on through a tunnel"
use_namespace "$router"
cat >no-udp.nft <<'NFT'
table ip no_udp {
    chain forward {
        type filter hook forward priority -10; policy accept;
        meta l4proto udp drop
    }
}
NFT
show no-udp.nft
run nft -f no-udp.nft
wait_for agent "goes on through a tunnel"
use_namespace "$internet"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node_address:$port"
expect_output '"hello:hello"'
run dialback agents --node "$node_address:$port"
expect_output tunnel

heading "UDP passes again: the link goes back to it by itself"
use_namespace "$router"
run nft delete table ip no_udp
wait_for agent "has left its tunnel"
use_namespace "$internet"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node_address:$port"
expect_output '"hello:hello"'
run dialback agents --node "$node_address:$port"
expect_output udp
grep -c "attached" node.log | sed 's/^/    links that the agent has made meanwhile: /'
[ "$(grep -c attached node.log)" -eq 1 ] || fail "the agent has made another link"

heading "Stop both with SIGTERM"
stop agent
stop node

heading "Delete the three networks"
command_prefix=()
clean_up_more
if ip netns list | grep -e "-$$\b"; then fail "a network namespace still exists"; fi
echo "    no network namespace remains"

heading "Done: an agent in an office that accepts nothing from outside answered hello:hello"
