#!/usr/bin/env bash
# Checks the files in deploy: settings with `dialback config check`, units with systemd-analyze, alerting rules with promtool, manifests with
# kubernetes-validate, which is installed once with pip in the target directory. It prints what it cannot check because a program is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

# `make test` names the binary that its tests have built.
dialback=${BINARY:-$(bash scripts/binary.sh)}
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for file in deploy/*/node.toml; do "$dialback" config check --text-only --node "$file"; done
for file in deploy/*/agent.toml; do "$dialback" config check --text-only --agent "$file"; done
for script in deploy/debian/{postinst,prerm,postrm}; do sh -n "$script"; done

if command -v systemd-analyze >/dev/null; then
    for unit in deploy/systemd/*.{service,timer}; do
        # A template is verified as an instance, and with a program that exists.
        name=${unit##*/}
        sed "s#/usr/bin/dialback#$dialback#" "$unit" >"$work/${name/@./@x.}"
    done
    systemd-analyze verify --man=no "$work"/*.{service,timer}
    echo "systemd-analyze verify: the units pass"
else
    echo "the units were NOT verified: systemd-analyze is not installed"
fi

if command -v promtool >/dev/null; then
    promtool check rules deploy/prometheus/alerts.yml
    promtool test rules deploy/prometheus/alerts-test.yml
else
    echo "the alerting rules were NOT checked: promtool (prometheus) is not installed"
fi

validator=$target/kubernetes-validate
installed() {
    python3 -c 'import ensurepip' 2>/dev/null || bash scripts/needs.sh python3-ensurepip=python3-venv || return 1
    python3 -m venv --clear "$validator" && bash scripts/retry.sh "$validator/bin/pip" install --quiet --disable-pip-version-check 'kubernetes-validate>=1.31'
}
if [ ! -x "$validator/bin/kubernetes-validate" ] && ! installed >&2; then
    echo "the manifests were NOT validated: kubernetes-validate cannot be installed"
    exit 0
fi
"$validator/bin/kubernetes-validate" --strict deploy/kubernetes/*.yaml examples/reach/ingress.yaml
# The settings in the manifests, and the form of the compose file.
"$validator/bin/python" - "$work" <<'PYTHON'
import sys, yaml
for role in ("node", "agent"):
    for part in yaml.safe_load_all(open(f"deploy/kubernetes/{role}.yaml")):
        if part["kind"] == "ConfigMap":
            open(f"{sys.argv[1]}/{role}.toml", "w").write(part["data"][f"{role}.toml"])
assert set(yaml.safe_load(open("deploy/docker/compose.yaml"))["services"]) == {"node", "agent"}
PYTHON
"$dialback" config check --text-only --node "$work/node.toml" --agent "$work/agent.toml"
