#!/usr/bin/env bash
# Runs a command that downloads, up to three times: `retry.sh COMMAND ARGUMENT...`. Ends with the last exit code.
set -uo pipefail

for wait in 2 10 0; do
    "$@" && exit 0
    status=$?
    echo "failed with exit code $status: $*" >&2
    [ "$wait" -eq 0 ] || { echo "trying again in $wait s" >&2; sleep "$wait"; }
done
exit "$status"
