#!/usr/bin/env bash
# A key pair for each SuperNode, in FOLDER: NAME stays with its SuperNode, NAME.pub is registered at the SuperLink.
# usage: node-keys.sh FOLDER NAME...
# A key that exists is kept: it is the node's identity.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,4s/^# //p' "$0" >&2; exit 2; }
folder=$1
shift
umask 077
mkdir -p "$folder"
for name; do
    [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_-]*$ ]] || {
        echo "node-keys.sh: '$name' is not a name: use letters, digits, - and _" >&2
        exit 2
    }
    [ -e "$folder/$name" ] || ssh-keygen -q -t ecdsa -b 384 -N "" -C "" -f "$folder/$name"
    chmod 644 "$folder/$name.pub"
    echo "$folder/$name.pub"
done
