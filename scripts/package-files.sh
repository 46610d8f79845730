#!/usr/bin/env bash
# Builds the release binary, and puts the man pages and completions that it prints next to it, in `package`. Prints the directory of both.
set -euo pipefail
cd "$(dirname "$0")/.."

bash scripts/needs.sh cc=gcc make=make
cargo build --release --locked --features cli --bin dialback >&2
release="$(realpath -m "${CARGO_TARGET_DIR:-target}")/release"
package=$release/package
rm -rf "$package"
"$release/dialback" man "$package/man"
gzip -9n "$package/man/"*
"$release/dialback" completions bash >"$package/dialback.bash"
"$release/dialback" completions fish >"$package/dialback.fish"
"$release/dialback" completions zsh >"$package/_dialback"
printf '%s\n' "$release"
