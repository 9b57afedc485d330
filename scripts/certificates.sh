#!/usr/bin/env bash
# A certificate authority of your own and a server certificate for the SuperLink, in FOLDER:
#   ca.crt   goes to every machine; ca.key signs further certificates, keep it off the network
#   server.pem, server.key   stay with the SuperLink
# usage: certificates.sh FOLDER HOST...     HOST: each name or IP address by which the SuperLink is reached
# Run again, it keeps the authority and makes a new server certificate: the nodes need no change.
set -euo pipefail
CA_DAYS=3650 SERVER_DAYS=365
quietly() {
    local said
    said=$("$@" 2>&1) || { echo "certificates.sh: $said" >&2; exit 1; }
}

[ $# -ge 2 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
folder=$1
shift
umask 077
mkdir -p "$folder"
cd "$folder"

names=()
for host; do
    if [[ $host =~ ^[0-9.]+$ || $host =~ ^[0-9A-Fa-f:]*:[0-9A-Fa-f:]+$ ]]; then
        names+=("IP:$host")
    elif [[ $host =~ ^[A-Za-z0-9*]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]]; then
        names+=("DNS:$host")
    else
        echo "certificates.sh: '$host' is neither a host name nor an IP address: give HOST without scheme and port" >&2
        exit 2
    fi
done

if [ ! -e ca.key ]; then
    quietly openssl req -x509 -newkey rsa:3072 -nodes -days "$CA_DAYS" -keyout ca.key -out ca.crt -subj "/CN=fedkd CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
fi
quietly openssl req -newkey rsa:3072 -nodes -keyout server.key.new -out server.csr -subj "/CN=fedkd SuperLink"
quietly openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days "$SERVER_DAYS" -out server.pem.new \
    -extfile <(
        echo "subjectAltName=$(IFS=,; echo "${names[*]}")"
        echo "basicConstraints=CA:FALSE"
        echo "keyUsage=digitalSignature,keyEncipherment"
        echo "extendedKeyUsage=serverAuth"
    )
quietly openssl verify -CAfile ca.crt server.pem.new
mv server.key.new server.key
mv server.pem.new server.pem
rm server.csr
chmod 644 ca.crt server.pem
echo "$folder/server.pem is for ${names[*]}, until $(openssl x509 -in server.pem -noout -enddate | cut -d= -f2)"
