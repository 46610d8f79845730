#!/usr/bin/env bash
# The demo across three networks on this machine: an office behind NAT that accepts nothing from outside, its router, and the internet.
#
#     office: agent 10.77.1.2 ---- 10.77.1.1 router 198.51.100.1 ---- 198.51.100.2 internet: node, caller
#
# Needs root, because it makes network namespaces; they are named after this process and are gone at the end, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || { echo "make demo-networks needs Linux: it is made of network namespaces" >&2; exit 1; }
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

at() {
    enter=(ip netns exec "$1")
    printf '  [%s]\n' "${1%-*}"
}

say "Build the program (the first time this takes a minute or two, then a second)"
binary=$(bash scripts/binary.sh)
in_a_directory_of_its_own
PATH=$(dirname "$binary"):$PATH

say "Three networks: the office, its router with NAT, the internet"
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
# The internet even knows a way to the office, so that it is the firewall and nothing else that keeps it out.
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

say "Make a CA, and certificates for the node (for its address), an agent and a caller"
run dialback certs init
run dialback certs issue node edge-1 --san "$node_address"
run dialback certs issue agent warehouse
run dialback certs issue caller ops

say "On the internet: a node"
cat >node.toml <<'TOML'
[[allow]]
caller = "ops"
agent = "**"
method = "HelloService/*"
TOML
show node.toml
at "$internet"
start node dialback node --config node.toml --listen "0.0.0.0:$port"
wait_for node "listens on"

say "In the office: an agent that dials out"
at "$office"
start agent dialback agent --demo --node "$node_address:$port"
wait_for agent registered

say "The node sees the router's address, not the agent's"
grep "attached" node.log | sed 's/^/    /'
grep "attached" node.log | grep -q "$router_address" || fail "the node does not see the router's address"

say "The office has no TCP listener, and one UDP socket: the one that the agent sends from"
at "$office"
run ss -H -ltn
[ -z "$said" ] || fail "something listens on TCP in the office"
run ss -H -lun
agent_port=$(printf '%s\n' "$said" | sed -n 's/.*:\([0-9][0-9]*\) .*/\1/p' | head -n 1)
[ "$(printf '%s\n' "$said" | wc -l)" -eq 1 ] || fail "the office has more than one UDP socket"
cat <<TEXT
    UDP knows no listening: ss shows every socket that is not tied to one peer. This one has the port $agent_port, which the kernel
    chose, and offers no service: QUIC on it accepts no connection, because the agent only dials. The firewall lets nothing come
    to it but answers of the node.
TEXT

say "From the internet the office cannot be reached, neither its machine nor the agent's socket"
at "$router"
refused 1 bash -c "exec 3<>/dev/tcp/$office_address/22"
echo "    (from the router, inside, the machine answers: there is nothing on that port)"
refused 78 dialback call warehouse HelloService/Hello -d '"hello"' --node "$office_address:$agent_port" --timeout 2s
echo "    (and inside, too, the agent's socket accepts no connection)"
at "$internet"
refused 124 timeout 2 bash -c "exec 3<>/dev/tcp/$office_address/22"
echo "    (from the internet nothing comes back at all)"
run bash -c "echo anybody there >/dev/udp/$office_address/$agent_port"
at "$router"
run nft list counter ip office refused
expect_said packets
case $said in *"packets 0 "*) fail "the firewall has counted nothing" ;; esac
echo "    (the firewall has dropped what came from outside unasked)"

say "A third process, on the internet, calls the agent in the office through the node"
at "$internet"
run dialback call warehouse HelloService/Hello -d '"hello"' --node "$node_address:$port"
expect_said '"hello:hello"'
echo "    the agent answered:  hello:hello"
run dialback agents --node "$node_address:$port"
expect_said "$router_address"

say "Stop both with SIGTERM"
stop agent
stop node

say "Take the three networks down"
enter=()
clean_up_more
if ip netns list | grep -e "-$$\b"; then fail "a network namespace was left behind"; fi
echo "    no network namespace is left behind"

say "Done: hello:hello came out of an office that accepts nothing from outside"
