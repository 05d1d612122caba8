#!/usr/bin/env bash
# Looks the packages of all lock files up among the known vulnerabilities (`make audit`).
#
#   cluster/audit.sh           exit code 1: a package has one that is not accepted; 3: nothing was looked up
#   cluster/audit.sh --warn    says the same and ends with 0 (`make check`: what was published today must
#                              not stop work that has nothing to do with it)
#
# pip-audit asks PyPI's advisory database. It runs in an environment of its own, which uv keeps in its cache:
# neither the locks nor .venv hold it. What has been looked at and does not concern music_ray stands in
# cluster/audit-accepted.txt, one a line: ID, then why.
set -euo pipefail

PIP_AUDIT=pip-audit==2.10.1
WAIT_SECONDS=15 # for one answer
export UV_HTTP_TIMEOUT=$WAIT_SECONDS

cd "$(dirname "${BASH_SOURCE[0]}")/.."
warn_only=$([ "${1:-}" = --warn ] && echo yes || echo no)
bin=${VENV:-.venv}/bin
eval "$("$bin/python" cluster/pip_settings.py)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

end() { # with the exit code, unless only warnings are asked for
    if [ "$warn_only" = yes ]; then exit 0; else exit "$1"; fi
}
pip_audit() { # LIST REPORT; its exit code says too little (cluster/read_audit.py)
    "$bin/uv" --quiet tool run --from "$PIP_AUDIT" pip-audit --disable-pip --no-deps --progress-spinner off \
        --timeout "$WAIT_SECONDS" --requirement "$1" --format json --output "$2" >"$scratch/log" 2>&1 || true
    if [ ! -s "$2" ]; then
        echo "audit: NOT DONE: $(tail -n 1 "$scratch/log" | cut -c -300)" >&2
        end 3
    fi
}

# Most packages stand in several locks, and each is asked for once. pip-audit takes no list with two versions of
# one package: the second and the third version stand in lists of their own.
cat requirements-cpu.lock requirements-gpu.lock cluster/requirements-clouds.lock |
    grep -E '^[A-Za-z0-9]' | sort -u | awk -F== -v to="$scratch" '{ print > (to "/list-" ++seen[tolower($1)]) }'

# One package first: where the service can't be reached or knows nothing, the others are not asked for.
grep -E '^requests==' "$scratch/list-1" >"$scratch/first"
pip_audit "$scratch/first" "$scratch/first.json"
if ! grep -q '"vulns"' "$scratch/first.json"; then
    echo "audit: NOT DONE: the advisory service knows nothing of $(cat "$scratch/first"), as behind a mirror of" \
        "the registry: run 'make audit' where https://pypi.org itself answers" >&2
    end 3
fi
for list in "$scratch"/list-?; do
    pip_audit "$list" "$list.json"
done
code=0
"$bin/python" cluster/read_audit.py cluster/audit-accepted.txt "$scratch"/list-?.json || code=$?
if [ "$code" = 1 ]; then
    echo "audit: raise these packages ('make lock LOCK_ARGS=\"--upgrade-package NAME\"'), or, where they do not" \
        "concern music_ray, write ID and reason into cluster/audit-accepted.txt" >&2
fi
end "$code"
