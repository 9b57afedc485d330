#!/usr/bin/env bash
# Submit the app, follow its log however often the SuperLink goes away meanwhile, exit with the verdict (0: completed).
# usage: federate.sh APP SUPERLINK [ARGUMENTS OF flwr run]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
app=$1 superlink=$2
shift 2

field() { sed -nE "s/.*\"$1\": \"?([a-z0-9:]+)\"?.*/\1/p" | head -n 1; }

answer=$(flwr run "$app" "$superlink" "$@" --format json) || true
run=$(field run-id <<<"$answer")
[ -n "$run" ] || { echo "federate.sh: Flower refused the app: $answer" >&2; exit 1; }
while true; do
    flwr log "$run" "$superlink" || true
    status=$(flwr ls "$superlink" --run-id "$run" --format json | field status) || true
    case $status in
        finished:completed) exit 0 ;;
        finished:*) echo "federate.sh: run $run has $status" >&2; exit 1 ;;
    esac
    sleep 5
done
