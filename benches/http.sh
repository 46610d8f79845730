#!/usr/bin/env bash
# Compares HTTP requests to nginx through a site of dialback (gateway, node and agent: two processes and one encrypted link) with other paths
# on the same machine, interleaved in one run: only the ratios count.
#
#   direct   no tunnel at all: the limit of the machine
#   rathole  two processes; its Noise transport, so that it encrypts too. It forwards TCP, and neither reads nor decides on requests, as
#            the tcp proxies of frp. Only if `rathole` is in the PATH or RATHOLE names it
#
# `benches/http.sh [ROUNDS]`; needs nginx and wrk. Builds the release binary unless DIALBACK names one.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=${1:-5} seconds=${SECONDS_EACH:-4}
bash scripts/needs.sh nginx=nginx wrk=wrk
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
# Waits until a log contains a text.
wait_for() { for _ in $(seq 200); do grep -q "$2" "$work/$1" 2>/dev/null && return; sleep 0.1; done; cat "$work/$1" >&2; exit 1; }

free=42000
port() { free=$((free + 1)); while ss -Hltn "sport = :$free" 2>/dev/null | grep -q .; do free=$((free + 1)); done; printf -v "$1" %s "$free"; }
port nginx; port control; port rat

cd "$work"
mkdir www
# nginx may leave root's rights, and reads them then.
chmod 755 "$work" www
head -c 100 /dev/zero | tr '\0' x >www/small
head -c 1048576 /dev/urandom >www/large
cat >nginx.conf <<NGINX
worker_processes 1;
daemon off;
pid $work/nginx.pid;
error_log $work/nginx.log;
events { worker_connections 1024; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    default_type application/octet-stream;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    server { listen 127.0.0.1:$nginx; root $work/www; }
}
NGINX
nginx -c "$work/nginx.conf" >>"$work/log" 2>&1 </dev/null & pids+=($!)

for name in $(env | sed -n 's/^\(DIALBACK_[A-Z_]*\)=.*/\1/p'); do unset "$name"; done
"$DIALBACK" certs init >/dev/null
"$DIALBACK" certs issue node edge-1 --san localhost --san 127.0.0.1 >/dev/null
"$DIALBACK" certs issue agent warehouse >/dev/null
token=$("$DIALBACK" token create ops --ttl 1d --file tokens)
cat >node.toml <<TOML
listen = "127.0.0.1:0"
[gateway]
listen = "127.0.0.1:0"
tokens = "tokens"
[[site]]
host = "web.test"
agent = "warehouse"
http = "web"
[[allow]]
caller = "ops"
agent = "warehouse"
method = "http:web"
TOML
"$DIALBACK" node --config node.toml >node.log 2>&1 & pids+=($!)
wait_for node.log "the gateway listens"
node=$(sed -n 's/.*node edge-1 listens on \([0-9.:]*\).*/\1/p' node.log | head -n 1)
gateway=$(sed -n 's|.*the gateway listens on http://\([0-9.:]*\).*|\1|p' node.log | head -n 1)
"$DIALBACK" agent --node "$node" --http "web=http://127.0.0.1:$nginx" >agent.log 2>&1 & pids+=($!)
wait_for agent.log registered

paths=(direct dialback)
if [ -n "$rathole" ]; then
    paths=(direct rathole dialback)
    keys=$("$rathole" --genkey)
    private=$(printf '%s\n' "$keys" | sed -n '2p') public=$(printf '%s\n' "$keys" | sed -n '5p')
    cat >rathole.toml <<TOML
[server]
bind_addr = "127.0.0.1:$control"
default_token = "t"
[server.transport]
type = "noise"
[server.transport.tcp]
nodelay = true
[server.transport.noise]
local_private_key = "$private"
[server.services.web]
bind_addr = "127.0.0.1:$rat"
[client]
remote_addr = "127.0.0.1:$control"
default_token = "t"
[client.transport]
type = "noise"
[client.transport.tcp]
nodelay = true
[client.transport.noise]
remote_public_key = "$public"
[client.services.web]
local_addr = "127.0.0.1:$nginx"
TOML
    "$rathole" --server rathole.toml >rathole-server.log 2>&1 & pids+=($!)
    "$rathole" --client rathole.toml >rathole-client.log 2>&1 & pids+=($!)
fi

address_of() { case $1 in direct) echo "127.0.0.1:$nginx" ;; rathole) echo "127.0.0.1:$rat" ;; dialback) echo "$gateway" ;; esac; }
headers=(-H "Host: web.test" -H "Authorization: Bearer $token")
for path in "${paths[@]}"; do
    for _ in $(seq 100); do curl -fsS -o answer "${headers[@]}" "http://$(address_of "$path")/large" 2>/dev/null && break; sleep 0.1; done
    cmp answer www/large
done

# Requests a second and the 99th percentile in microseconds, of this path, file and number in flight.
measure() {
    wrk -t "$([ "$3" = 1 ] && echo 1 || echo 2)" -c "$3" -d "${seconds}s" --latency "${headers[@]}" "http://$(address_of "$1")/$2" >out
    if grep -Eq 'Non-2xx|Socket errors' out; then cat out >&2; exit 1; fi
    awk '
        function us(text) { return text ~ /us$/ ? text + 0 : text ~ /ms$/ ? text * 1000 : text * 1000000 }
        $1 == "99%" { p99 = us($2) }
        $1 == "Requests/sec:" { rate = $2 }
        END { print rate > "'"rate.$2.$3.$1.new"'"; print p99 > "'"p99.$2.$3.$1.new"'" }' out
    for what in rate p99; do cat "$what.$2.$3.$1.new" >>"$what.$2.$3.$1"; done
}
median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

for ((round = 1; round <= rounds; round++)); do
    for file in small large; do
        for in_flight in 1 64; do
            for path in "${paths[@]}"; do measure "$path" "$file" "$in_flight"; done
        done
    done
    echo "round $round of $rounds done" >&2
done

columns=(small.1 small.64 large.1 large.64)
printf '%-20s' ''
for column in "${columns[@]}"; do printf ' %14s %14s' "$column req/s" "p99 us"; done
echo
for path in "${paths[@]}"; do
    printf '%-20s' "$path"
    for column in "${columns[@]}"; do printf ' %14.0f %14.0f' "$(median "rate.$column.$path")" "$(median "p99.$column.$path")"; done
    echo
done
for path in "${paths[@]}"; do
    [ "$path" = dialback ] && continue
    printf '%-20s' "dialback / $path"
    for column in "${columns[@]}"; do
        for what in rate p99; do
            awk -v a="$(median "$what.$column.dialback")" -v b="$(median "$what.$column.$path")" 'BEGIN { printf " %13.2fx", a / b }'
        done
    done
    echo
done
