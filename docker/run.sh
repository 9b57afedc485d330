#!/usr/bin/env bash
# Run the federation of compose.yaml, which must be up, and fetch its results to runs/NAME.
# usage: docker/run.sh NAME [RUN-CONFIG]     as in: docker/run.sh first 'labels="negative,neutral,positive" num-rounds=3'
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
name=$1
compose() { docker compose -f "$(dirname "$0")/compose.yaml" "$@"; }
compose run --rm -T operator /app/scripts/federate.sh /app fed --run-config "${2:-} run-name=\"$name\""
mkdir -p runs
compose cp "superexec:/var/lib/fedkd/runs/$name" runs/
echo "runs/$name/student"
