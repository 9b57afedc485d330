#!/usr/bin/env bash
# Certificates, node keys and the SuperExec's secret for compose.yaml, in docker/secrets. What exists is kept.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets data/{north,south,west}
[ -e secrets/server.pem ] || ../scripts/certificates.sh secrets superlink
[ -e secrets/superexec.secret ] || openssl rand -hex 32 > secrets/superexec.secret
../scripts/node-keys.sh secrets north south west
# The containers' user reads single files of this folder; on this machine only its owner gets into it.
chmod 644 secrets/{server.key,superexec.secret,north,south,west}
chmod 755 data data/*
