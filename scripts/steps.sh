# Functions for the demos, which source this file: print each step, its command and its output; on exit, end every started process.
# shellcheck shell=bash

# The user's settings must not change the demo.
for name in ${!DIALBACK_@}; do unset "$name"; done
export NO_COLOR=1

pid_of_node='' pid_of_agent='' work='' output='' step=0
# Put before every command, for demos that use network namespaces: `ip netns exec NAME`.
command_prefix=()

heading() {
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

use_temporary_directory() {
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

# Prints a command as a user would type it.
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

# Runs a command to its end, prints its output and stores it in $output.
try() {
    local status=0
    print_command "$@"
    output=$(${command_prefix[@]+"${command_prefix[@]}"} timeout --foreground 30 "$@" 2>&1) || status=$?
    [ -z "$output" ] || printf '%s\n' "$output" | sed 's/^/    /'
    return "$status"
}

run() {
    local status=0
    try "$@" || status=$?
    [ "$status" -eq 0 ] || fail "the command ended with exit code $status"
}

# Runs a command that must end with this exit code.
refused() {
    local wanted=$1 status=0
    shift
    try "$@" || status=$?
    [ "$status" -eq "$wanted" ] || fail "the exit code was $status, not $wanted"
    printf '    (exit code %d, as expected)\n' "$status"
}

expect_output() {
    case $output in *"$1"*) ;; *) fail "the output does not contain: $1" ;; esac
}

# start node|agent COMMAND...: runs it in the background, with its log in a file.
start() {
    local role=$1
    shift
    printf '%s &\n' "$(print_command "$@")"
    : >"$work/$role.log"
    ${command_prefix[@]+"${command_prefix[@]}"} "$@" >>"$work/$role.log" 2>&1 </dev/null &
    printf -v "pid_of_$role" %s $!
}

# wait_for node|agent TEXT: waits until the log contains the text. Fails if the process ends first, or after 20 s.
wait_for() {
    local role=$1 text=$2 pid="pid_of_$1" tries=0
    until grep -q "$text" "$work/$role.log"; do
        kill -0 "${!pid}" 2>/dev/null || fail "the $role ended before it logged: $text"
        [ "$tries" -lt 200 ] || fail "the $role did not log within 20 s: $text"
        tries=$((tries + 1))
        sleep 0.1
    done
    sed 's/^/    /' "$work/$role.log"
}

# stop node|agent: sends SIGTERM. The process must end with exit code 0 within 15 s.
stop() {
    local role=$1 pid="pid_of_$1" tries=0 status=0
    printf '  $ kill -TERM %s   # the %s\n' "${!pid}" "$role"
    kill -TERM "${!pid}"
    while kill -0 "${!pid}" 2>/dev/null; do
        [ "$tries" -lt 150 ] || fail "the $role did not end within 15 s"
        tries=$((tries + 1))
        sleep 0.1
    done
    wait "${!pid}" || status=$?
    [ "$status" -eq 0 ] || fail "the $role ended with exit code $status"
    printf '    the %s ended with exit code 0\n' "$role"
    printf -v "pid_of_$role" %s ''
}

# Checks that no UDP socket has this port, if the kernel lists its UDP sockets.
port_is_free() {
    local hex
    [ -r /proc/net/udp ] || return 0
    hex=$(printf ':%04X ' "$1")
    if cat /proc/net/udp /proc/net/udp6 2>/dev/null | grep -q "$hex"; then fail "UDP port $1 is still in use"; fi
    printf '    UDP port %d is free again\n' "$1"
}
