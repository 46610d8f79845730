#!/usr/bin/env bash
# Removes what `make certs`, `dialback certs` and `dialback token` generate in certs/, and nothing else: the files of the CA, and those of the parties that
# stand in the record of what was issued or for which a request lies there, and files of bearer tokens that `dialback token` made.
# Certificates from elsewhere are somebody's own.
set -euo pipefail
cd "$(dirname "$0")/../certs"

parties() {
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

parties | while IFS= read -r party; do
    rm -f -- "$party.pem" "$party.key" "$party.csr" ".$party.key.requested" ".$party.key.next" ".$party.pem.next"
done
rm -f ca.pem ca.key crl.pem crl.number issued.jsonl revoked.jsonl join-tokens.jsonl .ca.key.next .ca.pem.next .[a-z]*.tmp

for file in *; do
    [ -f "$file" ] && [ ! -L "$file" ] || continue
    first=
    IFS= read -r first < "$file" || true
    case "$first" in '# Bearer tokens of callers: '*) rm -f -- "$file" ;; esac
done
