#!/usr/bin/env bash
# Holds the OpenAPI document of the HTTP gateway against a validator of others, which is installed with pip below the target directory, once.
# Where it cannot be installed, that is said, and nothing fails.
set -euo pipefail
cd "$(dirname "$0")/.."

installed() {
    python3 -c 'import ensurepip' 2>/dev/null || bash scripts/needs.sh python3-ensurepip=python3-venv || return 1
    python3 -m venv "$1" && bash scripts/retry.sh "$1/bin/pip" install --quiet --disable-pip-version-check 'openapi-spec-validator>=0.7.1'
}

if [ -z "${OPENAPI_SPEC_VALIDATOR:-}" ]; then
    venv="$(realpath -m "${CARGO_TARGET_DIR:-target}")/openapi-validator"
    if [ ! -x "$venv/bin/openapi-spec-validator" ] && ! installed "$venv" >&2; then
        echo "the OpenAPI document was NOT validated: openapi-spec-validator cannot be installed from here"
        exit 0
    fi
    export OPENAPI_SPEC_VALIDATOR="$venv/bin/openapi-spec-validator"
fi
cargo test --locked --features cli --test it -- --ignored pages::a_third_party_validator
