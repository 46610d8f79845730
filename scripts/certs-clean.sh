#!/usr/bin/env bash
# Removes what `make certs`, `dialback certs` and `dialback token` generate in certs/, and nothing else: the files of the CA, the files of each
# peer that is recorded in issued.jsonl or has a certificate request there, and token files that `dialback token` made.
# Certificates from other sources are kept.
set -euo pipefail
cd "$(dirname "$0")/../certs"

peers() {
    [ ! -f issued.jsonl ] || sed -n 's/.*"role":"\([a-z]*\)","name":"\([a-z0-9.-]*\)".*/\1-\2/p' issued.jsonl
    local request
    for request in node-*.csr agent-*.csr caller-*.csr; do
        [ ! -f "$request" ] || printf '%s\n' "${request%.csr}"
    done
    for request in .node-*.key.requested .agent-*.key.requested .caller-*.key.requested; do
        request=${request#.}
        [ ! -f ".$request" ] || printf '%s\n' "${request%.key.requested}"
    done
}

peers | while IFS= read -r peer; do
    rm -f -- "$peer.pem" "$peer.key" "$peer.csr" ".$peer.key.requested" ".$peer.key.pending" ".$peer.key.next" ".$peer.pem.next"
done
rm -f ca.pem ca.key crl.pem crl.number issued.jsonl revoked.jsonl join-tokens.jsonl .ca.key.next .ca.pem.next .[a-z]*.tmp

for file in *; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    first=
    IFS= read -r first < "$file" || true
    case "$first" in '# Bearer tokens of callers: '*) rm -f -- "$file" ;; esac
done
