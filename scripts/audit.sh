#!/usr/bin/env bash
# Known vulnerabilities of what the lock file pins: scripts/audit.sh [EXTRA], all by default.
# Needs uv, and a network: the vulnerability service of PyPI, or OSV's with SERVICE=osv.
set -euo pipefail
cd "$(dirname "$0")/.."
pinned=$(mktemp)
trap 'rm -f "$pinned"' EXIT
uv export --locked --quiet --no-emit-project --extra "${1:-all}" --output-file "$pinned"
# Without --strict, what the service does not know passes.
uvx pip-audit --strict --disable-pip --require-hashes --vulnerability-service "${SERVICE:-pypi}" \
    --requirement "$pinned"
