# Sourced, with the path in `path=(DELAY_MS LOSS_PERCENT RATE_MBIT QUEUE_KB)` and the programs of benchmarks built: makes two network namespaces,
# $near (10.99.0.1) and $far (10.99.0.2), which a program joins that delays, drops and shapes packets; the delay is one way. They end with the script.
# TCP_CONGESTION chooses TCP's control in both. Needs Linux and root, because it creates namespaces and TUN devices.
near=near-$$ far=far-$$ control=
clean_up() {
    [ -z "$control" ] || exec {control}>&-
    for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done
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
