#!/usr/bin/env bash
# Resolves requirements-cpu.lock and requirements-gpu.lock from pyproject.toml (`make lock`).
#
#   cluster/lock.sh              keeps the versions that the files hold, as far as pyproject.toml allows
#   cluster/lock.sh --upgrade    takes the newest ones that go together (any option of
#                                `uv pip compile` can stand here, e.g. --upgrade-package ray)
#
# Resolved for the oldest supported Python, 3.11, on Linux x86_64. Nothing is installed: the GPU file
# needs no GPU.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${VENV:-.venv}/bin
eval "$("$bin/python" cluster/pip_settings.py)"
# From the registry (or the mirror that stands in for it) alone: what else pip looks at on this
# machine must not decide what everybody gets.
unset UV_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_TORCH_BACKEND

resolve() {
    local file=$1
    shift
    # --no-emit-*: neither indexes nor folders of this machine belong into the file.
    "$bin/uv" "$@" --output-file "$file" --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
        --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet
    if grep -nE '://|^-|file:|\+cpu' "$file"; then
        echo "lock: $file names a place or a build of this machine, see above" >&2
        exit 1
    fi
    echo "$file: $(grep -c '==' "$file") packages"
}

resolve requirements-cpu.lock --config-file cluster/lock-cpu.toml pip compile pyproject.toml --extra cpu --extra dev "$@"
resolve requirements-gpu.lock --no-config pip compile pyproject.toml --extra gpu "$@"
