#!/usr/bin/env bash
# docker/ for real, with whatever `docker` is on the PATH: build, up, two rounds on the demo's tweets with a silo killed
# in the second, the student fetched and loaded, everything taken down.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
run=e2e-$(date +%s)
compose() { docker compose --progress quiet --file docker/compose.yaml "$@"; }

finish() {
    code=$?
    [ $code -eq 0 ] || compose logs --tail 15 --no-color
    compose --profile operator down --volumes --remove-orphans --timeout 5
    rm -rf "runs/$run"
    exit $code
}
trap finish EXIT

docker/prepare.sh
$python docker/demo_data.py 20
compose up --build --wait --detach
compose ps --format 'table {{.Service}}\t{{.Status}}'

docker/run.sh "$run" 'labels="negative,neutral,positive" num-rounds=2 local-steps=2 batch-size=16 max-test-examples=32 threads=1' &
runner=$!
until [ "$(compose logs west | grep -c 'Receiving: train message')" = 2 ]; do
    kill -0 $runner
    sleep 1
done
echo "west trains in round 2: killing its SuperNode"
compose exec -T west sh -c 'kill -9 $(cat /proc/1/task/1/children)'
wait $runner

$python - "runs/$run" <<'P'
import csv, json, sys
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = Path(sys.argv[1])
rounds = json.loads((folder / "history.json").read_text())["rounds"]
assert [(r["trained"], list(r["failed"])) for r in rounds] == [(3, []), (2, ["west"])], rounds
with (folder / "traffic.csv").open() as file:
    rows = [row for row in csv.DictReader(file) if row["direction"] == "up"]
sent = {(row["round"], row["node"]) for row in rows}
assert sent == {("1", "north"), ("1", "south"), ("1", "west"), ("2", "north"), ("2", "south")}, sent
model = AutoModelForSequenceClassification.from_pretrained(folder / "student", trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(folder / "student")
scores = model(**tokenizer("my flight was cancelled again", return_tensors="pt")).logits
print(f"student: {model.config.id2label}, scores {scores.tolist()}")
print(f"traffic.csv: {sum(int(row['bytes']) for row in rows):,} bytes up")
P

online() { compose run --rm -T operator flwr supernode list fed --format json | grep -c '"status": "online"'; }
until [ "$(online)" = 3 ]; do sleep 5; done
echo "west was restarted $(docker inspect --format '{{.RestartCount}}' "$(compose ps --quiet west)") times and is online again"
