# For the demos, to be sourced: shows each step, the command and what it said; ends every process that was started, whatever happens.
# shellcheck shell=bash

# Settings of the person who runs the demo must not change it.
for name in ${!DIALBACK_@}; do unset "$name"; done
export NO_COLOR=1

pid_of_node='' pid_of_agent='' work='' said='' step=0
# Before every process, for demos that run them elsewhere: `ip netns exec NAME`.
enter=()

say() {
    step=$((step + 1))
    printf '\n== %d. %s\n' "$step" "$*"
}

fail() {
    printf '\nFAILED: %s\n' "$*" >&2
    local log
    for log in node.log agent.log; do
        [ -n "$work" ] && [ -s "$work/$log" ] && { printf -- '--- %s\n' "$log"; tail -n 20 "$work/$log"; } >&2
    done
    exit 1
}

in_a_directory_of_its_own() {
    work=$(mktemp -d)
    cd "$work"
}

clean_up() {
    local status=$? pid
    set +e
    trap '' INT TERM HUP
    for pid in $pid_of_agent $pid_of_node; do
        kill -KILL "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    if declare -F clean_up_more >/dev/null; then clean_up_more; fi
    [ -z "$work" ] || { cd /; rm -rf "$work"; }
    exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A command as somebody would type it.
print_command() {
    local word line='  $'
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=@+-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
    done
    printf '%s\n' "$line"
}

show() {
    print_command cat "$1"
    sed 's/^/    /' "$1"
}

# Runs a command to its end, shows what it said and keeps it in $said.
try() {
    local status=0
    print_command "$@"
    said=$(${enter[@]+"${enter[@]}"} timeout --foreground 30 "$@" 2>&1) || status=$?
    [ -z "$said" ] || printf '%s\n' "$said" | sed 's/^/    /'
    return "$status"
}

run() {
    local status=0
    try "$@" || status=$?
    [ "$status" -eq 0 ] || fail "the command ended with exit code $status"
}

# Runs a command that has to end with this exit code.
refused() {
    local wanted=$1 status=0
    shift
    try "$@" || status=$?
    [ "$status" -eq "$wanted" ] || fail "the exit code was $status and not $wanted"
    printf '    (exit code %d, as it should be)\n' "$status"
}

expect_said() {
    case $said in *"$1"*) ;; *) fail "that does not say $1" ;; esac
}

# start node|agent COMMAND...: runs it beside us, with its log in a file.
start() {
    local who=$1
    shift
    printf '%s &\n' "$(print_command "$@")"
    : >"$work/$who.log"
    ${enter[@]+"${enter[@]}"} "$@" >>"$work/$who.log" 2>&1 </dev/null &
    printf -v "pid_of_$who" %s $!
}

# wait_for node|agent TEXT: until the log says so, or the process ends, or 20 s have passed.
wait_for() {
    local who=$1 text=$2 pid="pid_of_$1" tries=0
    until grep -q "$text" "$work/$who.log"; do
        kill -0 "${!pid}" 2>/dev/null || fail "the $who ended before it said: $text"
        [ "$tries" -lt 200 ] || fail "the $who did not say within 20 s: $text"
        tries=$((tries + 1))
        sleep 0.1
    done
    sed 's/^/    /' "$work/$who.log"
}

# stop node|agent: SIGTERM, and it has to end with exit code 0 within 15 s.
stop() {
    local who=$1 pid="pid_of_$1" tries=0 status=0
    printf '  $ kill -TERM %s   # the %s\n' "${!pid}" "$who"
    kill -TERM "${!pid}"
    while kill -0 "${!pid}" 2>/dev/null; do
        [ "$tries" -lt 150 ] || fail "the $who did not end within 15 s"
        tries=$((tries + 1))
        sleep 0.1
    done
    wait "${!pid}" || status=$?
    [ "$status" -eq 0 ] || fail "the $who ended with exit code $status"
    printf '    the %s ended with exit code 0\n' "$who"
    printf -v "pid_of_$who" %s ''
}

# Where the kernel lists its UDP sockets, the node's is no longer among them.
port_is_free() {
    local hex
    [ -r /proc/net/udp ] || return 0
    hex=$(printf ':%04X ' "$1")
    if cat /proc/net/udp /proc/net/udp6 2>/dev/null | grep -q "$hex"; then fail "UDP port $1 is still taken"; fi
    printf '    UDP port %d is free again\n' "$1"
}
