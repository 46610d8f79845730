#!/usr/bin/env bash
# Installs the Python packages of examples/requirements.txt and tests/browser/requirements.txt, which the tests run, with pip in a virtual
# environment in the target directory: once, and again when those files change or python3 does.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="$(realpath -m "${CARGO_TARGET_DIR:-target}")/python-programs"
files=(examples/requirements.txt tests/browser/requirements.txt)
wanted=$(python3 --version && cat "${files[@]}")
# Written last: without it an installation was interrupted.
mark=$venv/installed
if [ -f "$mark" ] && [ "$(cat "$mark")" = "$wanted" ] && "$venv/bin/python" -c 'import grpc, playwright' 2>/dev/null; then
    exit 0
fi

python3 -c 'import ensurepip' 2>/dev/null || bash scripts/needs.sh python3-ensurepip=python3-venv
echo "installing the Python packages of ${files[*]} in $venv" >&2
python3 -m venv --clear "$venv"
bash scripts/retry.sh "$venv/bin/pip" install --quiet --disable-pip-version-check "${files[@]/#/--requirement=}" >&2
printf '%s\n' "$wanted" > "$mark"
