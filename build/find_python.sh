#!/bin/sh
# Print the Python to use: the one named, else the newest suitable one on PATH.
# Says what is missing, and how to get it, when there is none.
set -eu

suitable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ "${1:-}" ]; then
    if suitable "$1"; then
        command -v "$1"
        exit 0
    fi
    echo "$1 is not a Python 3.11 or newer that can make virtual environments" >&2
    exit 1
fi

# 3.11 to 3.13 first: the locked packages have ready-made wheels for these.
for candidate in python3.13 python3.12 python3.11 python3 python python3.14; do
    if suitable "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
done

cat >&2 <<'MESSAGE'
No Python 3.11 or newer with the venv module was found on PATH.
  Debian, Ubuntu:  apt-get install python3 python3-venv
  elsewhere:       name one with  make PYTHON=/path/to/python3.12 …
MESSAGE
exit 1
