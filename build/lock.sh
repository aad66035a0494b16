#!/bin/sh
# Write requirements/*.txt and tests/clients/requirements/*.txt again. `make lock` calls it.
#
# The files name packages, versions and hashes and never an address: where
# packages come from is the business of the machine that installs them. The
# hashes cover every file of a release, so one lock serves Python 3.11 to 3.13
# and all architectures that have wheels.
set -eu

export CUSTOM_COMPILE_COMMAND="make lock"

compile() {
    "$PYTHON" -m piptools compile --quiet --upgrade --generate-hashes \
        --strip-extras --allow-unsafe --annotation-style line --no-emit-options \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
        --output-file "$1" "$2"
}

compile requirements/run.txt pyproject.toml
for part in install dev binary lock; do
    compile "requirements/$part.txt" "requirements/$part.in"
done
# Other people's programs, each in an environment of its own.
for part in clients litellm; do
    compile "tests/clients/requirements/$part.txt" "tests/clients/requirements/$part.in"
done
