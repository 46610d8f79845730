#!/usr/bin/env bash
# Removes what `make certs` and `dialback certs` generate in certs/, by name: anything else there is somebody's own.
set -euo pipefail
cd "$(dirname "$0")/../certs"

rm -f ca.pem ca.key crl.pem issued.jsonl .[a-z]*.tmp
for role in node agent caller; do
    rm -f "$role"-*.pem "$role"-*.key "$role"-*.csr
done
