#!/usr/bin/env bash
# Run the federation of compose.yaml, which must be up, and fetch its results to runs/NAME, also those of a failed run.
# usage: docker/run.sh [--resume] NAME [RUN-CONFIG]     as in: docker/run.sh first 'data.labels="negative,neutral,positive" num-rounds=3'
# --resume continues run NAME, with its own config, after its last finished round; RUN-CONFIG may name more rounds.
set -euo pipefail
usage() { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
say() { echo "docker/run.sh: $*" >&2; }
here=$(cd "$(dirname "$0")" && pwd)
compose() { docker compose --file "$here/compose.yaml" "$@"; }

resume=
[ "${1:-}" != --resume ] || { resume=--resume; shift; }
case $# in 1 | 2) ;; *) usage ;; esac
name=$1
[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || { say "'$name' is not a name: use letters, digits, '.', '-' and '_'"; exit 2; }
if [ -z "$resume" ] && [ -e "runs/$name" ]; then
    say "runs/$name exists: choose another name, or continue that run: docker/run.sh --resume $name"
    exit 2
fi
config=$(compose exec -T superexec python /app/docker/run_config.py $resume "$name" ${2+"$2"} < /dev/null) || exit 2

compose ps --all --format '{{.Service}} {{.Health}}' | while read -r service health; do
    [ "$health" = healthy ] || say "$service is ${health:-not running}: docker compose -f docker/compose.yaml logs $service"
done

fetch="docker compose -f docker/compose.yaml cp superexec:/var/lib/fedkd/runs/$name runs/"
trap 'say "the log ends here, not the run; what it leaves: $fetch"; exit 130' INT
code=0
# shellcheck disable=SC2016  # expands in the container
compose exec -T operator sh -c 'cat > "/tmp/$1.toml" && exec /app/scripts/federate.sh /app fed --run-config "/tmp/$1.toml"' \
    sh "$name" <<< "$config" || code=$?
trap - INT
mkdir -p runs
if compose cp "superexec:/var/lib/fedkd/runs/$name" runs/ 2> /dev/null; then
    [ $code -eq 0 ] || say "the run failed; what it left is in runs/$name"
else
    say "nothing could be fetched: the run has left nothing, or the federation is down"
    [ $code -ne 0 ] || code=1
fi
[ $code -eq 0 ] || { say "to go on after its last finished round, once the federation is up: docker/run.sh --resume $name"; exit $code; }
echo "runs/$name/student"
