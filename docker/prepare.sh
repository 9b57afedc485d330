#!/usr/bin/env bash
# Certificates, node keys and the SuperExec's secret for compose.yaml, in docker/secrets, and a look at the silos' data
# in docker/data, where each silo's policy comes too. What exists is kept. Run it again once the data are there: it names what a silo could not read.
# FEDERATION, an absolute path, is another folder for secrets and data than docker/, here and for compose.yaml.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=${FEDERATION:-$here}
[[ $folder = /* ]] || { echo "prepare.sh: FEDERATION is '$folder': give an absolute path" >&2; exit 2; }
umask 077
mkdir -p "$folder"/data/{north,south,west}
cd "$folder"
[ -e secrets/server.pem ] || "$here/../scripts/certificates.sh" secrets superlink
[ -e secrets/superexec.secret ] || openssl rand -hex 32 > secrets/superexec.secret
"$here/../scripts/node-keys.sh" secrets north south west
# The containers' user reads single files and folders of these; on this machine only their owner gets into them.
chmod 644 secrets/{server.key,superexec.secret,north,south,west}
chmod 700 data
chmod 755 data/{north,south,west}
for silo in north south west; do
    [ -e "data/$silo/policy.toml" ] || install -m 644 "$here/policy.toml" "data/$silo/policy.toml"
done

code=0
refuse() { echo "prepare.sh: $folder/$1: $2" >&2; code=1; }
for file in data/{north,south,west}/{examples.csv,policy.toml}; do
    if [ -L "$file" ]; then
        refuse "$file" "a link leads nowhere inside a container: copy the file"
    elif [ ! -e "$file" ]; then
        echo "$folder/$file: to come, this silo's own data"
    elif [ ! -f "$file" ]; then
        refuse "$file" "not a file"
    elif [ -z "$(find "$file" \( -perm -o=r -o -user 10001 -perm -u=r \))" ]; then
        refuse "$file" "uid 10001, the containers' user, cannot read it: chmod o+r"
    fi
done
exit $code
