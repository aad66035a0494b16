#!/bin/sh
# Build the smallest Debian as an image for Podman, in a storage of its own, so that the
# images of this machine stay as they are:  build/sandbox_image.sh DIRECTORY IMAGE
# Prints the storage's configuration file, which CONTAINERS_STORAGE_CONF shall name.
set -eu

directory=$(mkdir -p "$1" && cd "$1" && pwd)
image=$2
# shellcheck source=/dev/null
suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || true
configuration="$directory/storage.conf"

cat >"$configuration" <<END
[storage]
driver = "overlay"
graphroot = "$directory/images"
runroot = "$directory/run"
END
export CONTAINERS_STORAGE_CONF="$configuration"

if ! podman image exists "$image"; then
    [ -s "$directory/base.tar" ] ||
        mmdebstrap --quiet --variant=minbase --aptopt='Acquire::Retries "5"' \
            "${suite:-bookworm}" "$directory/new.tar"
    [ -s "$directory/base.tar" ] || mv "$directory/new.tar" "$directory/base.tar"
    podman --events-backend=none import "$directory/base.tar" "$image" >/dev/null 2>&1
fi
echo "$configuration"
