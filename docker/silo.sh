#!/usr/bin/env bash
# In a silo's container: `silo.sh run` is its SuperNode, named by $SILO; `silo.sh check` is its health check.
set -euo pipefail
data=/data/examples.csv
policy=/data/policy.toml
pause=20

readable() {
    for file in $data $policy; do
        [ -r $file ] && continue
        echo "$file is missing or not readable for uid $(id -u): docker/prepare.sh says what to do"
        return 1
    done
}

if [ "$1" = check ]; then
    readable
    : < /dev/tcp/127.0.0.1/9094 # the SuperNode listens there
    exit
fi

# Without data it would join no run: wait for them, unhealthy meanwhile.
readable || until readable > /dev/null; do sleep 5; done

stopped=
export PATH=/pinned:$PATH # runs of the image's own app, and no other
flower-supernode --superlink superlink:8000 --root-certificates /run/secrets/ca.crt \
    --auth-supernode-private-key /run/secrets/key \
    --node-config "name=\"$SILO\" data-path=\"$data\" policy=\"$policy\" state-dir=\"/var/lib/fedkd/state\"" &
node=$!
trap 'stopped=yes; kill -TERM $node' TERM INT
code=0
wait $node || code=$?
[ -z "$stopped" ] || { wait $node || true; exit 0; }

# The SuperLink refuses this key for up to 60 s after a SuperNode was killed: no use in trying every few seconds.
echo "silo.sh: the SuperNode ended with exit code $code; starting again in $pause s"
trap 'exit 0' TERM INT
sleep $pause &
wait $!
exit "$code"
