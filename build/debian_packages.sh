#!/bin/sh
# Install the Debian packages that a make target needs, if their commands are
# missing:  build/debian_packages.sh command=package …
# Needs root or sudo without a password. Otherwise it prints the one command to
# run and fails; the caller decides whether it can do without.
set -eu

missing=""
for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null 2>&1 || missing="$missing ${pair#*=}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install, by this system's own means, what Debian calls:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    sudo=""
elif sudo -n true >/dev/null 2>&1; then
    sudo="sudo -n"
else
    echo "Please run:  sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# We want the programs, not their services running.
export RUNLEVEL=1
# A mirror may stumble, and somebody else may be installing at this moment.
patient="--option Acquire::Retries=5 --option DPkg::Lock::Timeout=120"
install="$sudo apt-get install $patient --quiet --quiet --yes --no-install-recommends $missing"
# shellcheck disable=SC2086  # the lists are words on purpose
$install >/dev/null 2>&1 || { $sudo apt-get update $patient --quiet --quiet && $install >/dev/null; }
