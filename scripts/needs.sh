#!/usr/bin/env bash
# Checks that programs are installed: `needs.sh PROGRAM=DEBIAN_PACKAGE...`. As root or with sudo it installs missing packages with apt,
# otherwise it prints which packages to install, and fails.
set -euo pipefail

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust (rustup, https://rustup.rs) and open a new shell" >&2
    exit 1
fi

missing=()
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]} (names of Debian packages); install them and retry" >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    as_root=(sudo)
else
    echo "missing: ${missing[*]}; install with: sudo apt-get install ${missing[*]}" >&2
    exit 1
fi

echo "installing with apt: ${missing[*]}" >&2
bash "${0%/*}/retry.sh" ${as_root[@]+"${as_root[@]}"} apt-get update -q >&2 </dev/null
bash "${0%/*}/retry.sh" ${as_root[@]+"${as_root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 </dev/null
