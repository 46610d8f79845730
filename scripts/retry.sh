#!/usr/bin/env bash
# Runs a command up to three times, for downloads: `retry.sh COMMAND ARGUMENT...`. Exits with the last exit code.
set -uo pipefail

for wait in 2 10 0; do
    "$@" && exit 0
    status=$?
    echo "failed with exit code $status: $*" >&2
    [ "$wait" -eq 0 ] || { echo "retrying in $wait s" >&2; sleep "$wait"; }
done
exit "$status"
