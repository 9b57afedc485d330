#!/usr/bin/env bash
# docker/ for real, with whatever `docker` is on the PATH, in a project and folder of its own: data that a silo cannot
# read; a silo killed, the run stopped, the whole federation taken down in the middle of a run, and resumed each time.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python
FEDERATION=$(mktemp -d)
export FEDERATION COMPOSE_PROJECT_NAME=fedkd-test-$$
run=first
compose() { docker compose --progress quiet --file "$root/docker/compose.yaml" "$@"; }
in_operator() { compose exec -T operator "$@" < /dev/null; }
fail() { echo "docker.sh: $*" >&2; exit 1; }

finish() {
    code=$?
    [ $code -eq 0 ] || compose logs --tail 15 --no-color
    compose down --volumes --remove-orphans --timeout 5
    docker image rm "$COMPOSE_PROJECT_NAME-flwr" > /dev/null || true
    rm -rf "$FEDERATION"
    exit $code
}
trap finish EXIT
cd "$FEDERATION"  # runs/ comes here

trains() { compose logs --no-log-prefix "$1" | grep -c 'Receiving: train message' || true; }
until_trains() {  # SILO COUNT PROCESS: wait for the silo's COUNT-th training while the process lives
    until [ "$(trains "$1")" -ge "$2" ]; do
        kill -0 "$3" || fail "the run ended before $1 trained for the ${2}th time"
        sleep 1
    done
}
up() {
    compose up --wait --detach
    compose ps --format 'table {{.Service}}\t{{.Status}}'
}

"$root/docker/prepare.sh"
"$python" "$root/docker/demo_data.py" 10
echo "--- data that a silo's user cannot read"
chmod 600 data/west/examples.csv
! "$root/docker/prepare.sh" > /dev/null 2>&1 || fail "prepare.sh did not see it"
compose up --build --detach
said=$(compose exec -T west /app/docker/silo.sh check < /dev/null) && fail "west is healthy without its data"
echo "west's health check: $said"
chmod 644 data/west/examples.csv
"$root/docker/prepare.sh" > /dev/null
up

echo "--- a silo killed in the second round"
config='data.labels="negative,neutral,positive" num-rounds=4 train.local-steps=8 train.batch-size=32 data.max-test-examples=32'
"$root/docker/run.sh" $run "$config" &
runner=$!
until_trains west 2 $runner
compose exec -T west sh -c "kill -9 \$(cat /proc/1/task/1/children)"
online() { in_operator flwr supernode list fed --format json | grep -c '"status": "online"'; }
until_trains north 3 $runner
until [ "$(online)" = 3 ] && [ "$(compose ps --format '{{.Health}}' west)" = healthy ]; do sleep 3; done
restarts=$(docker inspect --format '{{.RestartCount}}' "$(compose ps --quiet west)")
echo "west was restarted $restarts times and is online again"
[ "$restarts" -le 4 ] || fail "it came back too often"

echo "--- the run stopped"
run_id=$(in_operator flwr ls fed --format json | sed -nE 's/.*"run-id": "?([0-9]+)"?.*/\1/p' | head -n 1)
in_operator flwr stop "$run_id" fed
wait $runner && fail "a run that was stopped has exit code 0"
for file in history.json traffic.csv checkpoints; do [ -e "runs/$run/$file" ] || fail "$file was not fetched"; done
mv "runs/$run" runs/stopped
said=$("$root/docker/run.sh" $run "$config" 2>&1) && fail "the name $run was taken twice"
echo "$said"
[ "$(wc -l <<< "$said")" = 1 ] || fail "that is not one line"

echo "--- the federation taken down in the middle of the run"
before=$(trains north)
"$root/docker/run.sh" --resume $run &
runner=$!
until_trains north $((before + 1)) $runner
compose down
wait $runner && fail "a run without its federation has exit code 0"
for kind in container network; do
    left=$(docker $kind ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
    [ -z "$left" ] || fail "down left a $kind"
done
up
"$root/docker/run.sh" --resume $run

echo "--- what left a silo"
compose exec -T north tail -n 1 /var/lib/fedkd/state/egress.jsonl | grep '"message": "evaluate".*"sha256"' \
    || fail "north has no line of its last answer"

"$python" - runs/stopped "runs/$run" <<'P'
import csv, json, sys
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer

stopped, folder = map(Path, sys.argv[1:])
rounds = json.loads((folder / "history.json").read_text())["rounds"]
assert [r["round"] for r in rounds] == [1, 2, 3, 4], rounds
assert [(r["trained"], list(r["failed"])) for r in rounds[:2]] == [(3, []), (2, ["west"])], rounds
assert (rounds[3]["trained"], rounds[3]["failed"]) == (3, {}), rounds
before = json.loads((stopped / "history.json").read_text())["rounds"]
done = len(before) - 1  # the scores of the last round come with the next
assert done >= 1 and before[:done] == rounds[:done], (before, rounds)
with (folder / "traffic.csv").open() as file:
    rows = [row for row in csv.DictReader(file) if row["direction"] == "up"]
sent = {(row["round"], row["node"]) for row in rows if row["round"] in "12"}
assert sent == {("1", "north"), ("1", "south"), ("1", "west"), ("2", "north"), ("2", "south")}, sent
model = AutoModelForSequenceClassification.from_pretrained(folder / "student", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder / "student")
scores = model(**tokenizer("my flight was cancelled again", return_tensors="pt")).logits
print(f"student: {model.config.id2label}, scores {scores.tolist()}")
print(f"traffic.csv: {sum(int(row['bytes']) for row in rows):,} bytes up")
P
echo "docker.sh: all held"
