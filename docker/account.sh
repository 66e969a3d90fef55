#!/bin/sh
# Adds the image's user to the base image's own lists of users: with a shell script and not with
# useradd, which would have to run on the machine that the image is for.
#
#   account.sh BASE_ETC OUT NAME ID
set -eu
base=$1 out=$2 name=$3 id=$4
if cut -d: -f3 "$base/passwd" "$base/group" | grep -qx "$id"; then
    echo "account.sh: the base image has a user or group $id already" >&2
    exit 1
fi
mkdir -p "$out"
cp "$base/passwd" "$base/group" "$out/"
echo "$name:x:$id:$id:Unglitched:/var/lib/unglitched/cache:/usr/sbin/nologin" >>"$out/passwd"
echo "$name:x:$id:" >>"$out/group"
