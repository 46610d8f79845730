#!/usr/bin/env bash
# Makes certificates for a first trial on one machine. Every step keeps valid files, so the script can be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."

dialback=$(bash scripts/binary.sh)
"$dialback" certs init
"$dialback" certs issue node edge-1 --san localhost --san 127.0.0.1 --san ::1
"$dialback" certs issue agent warehouse
"$dialback" certs issue caller ops
