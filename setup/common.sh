# shellcheck shell=bash
# Set-up shared by ./demo and ./check: rights, disk space, distribution packages, the locked Python environment.
# Sourced, not run. Everything is idempotent; what is in place already costs milliseconds.

set -euo pipefail

SILO_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
SILO_CACHE=${SILO_CACHE:-$SILO_ROOT/.cache}
VENV=$SILO_ROOT/.venv
PYTHON=$VENV/bin/python
# Measured on a fresh Debian 12: packages 0.7 GiB, their archives 0.2, the checkout's .venv and .cache 1.0, /var/lib/silo 0.7.
# Added since: QEMU 0.1 GiB, the image of utility VMs with its packages 0.2, the tests' Debian disk with its tools 0.3.
NEEDED_GIB=4
# Debian 12 and 13 and Ubuntu 24.04 have all of these under the same names.
RUNTIME_PACKAGES="ca-certificates crun skopeo debian-archive-keyring libnftables1 libseccomp2 tini procps hostname mount
  python3 python3-venv gcc gcc-mingw-w64-x86-64-win32 qemu-system-x86 bubblewrap erofs-utils e2fsprogs"
# Given to sudo's command: everything else of the environment stays behind.
KEPT_VARIABLES="CI SILO_CACHE SILO_DOCKER http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY
  PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT PIP_CONFIG_FILE"

fail() {
    end_draw
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    exit 1
}

# draw PERCENT TEXT: one line that is redrawn on a terminal; in a log a line at the start and then every quarter.
LAST_DRAWN=""
draw() {
    local percent=$1 text=$2 filled
    if [ -t 2 ]; then
        filled=$((percent * 30 / 100))
        printf '\r\033[K%s [%s%s] %3d%%' "$text" "$(printf '%*s' "$filled" '' | tr ' ' '#')" \
            "$(printf '%*s' $((30 - filled)) '')" "$percent" >&2
    elif [ "$text $((percent / 25))" != "$LAST_DRAWN" ]; then
        LAST_DRAWN="$text $((percent / 25))"
        printf '%s %d%%\n' "$text" "$percent" >&2
    fi
}

end_draw() {
    LAST_DRAWN=""
    if [ -t 2 ]; then printf '\r\033[K' >&2; fi
}

become_root() {
    [ "$(id -u)" -eq 0 ] && return
    command -v sudo >/dev/null || fail "must run as root, and sudo is not installed: log in as root and run it again"
    echo "root is needed to make containers; asking sudo" >&2
    local name kept=()
    for name in $KEPT_VARIABLES; do
        [ -z "${!name:-}" ] || kept+=("$name=${!name}")
    done
    exec sudo -- env "${kept[@]}" "$SILO_ROOT/$(basename "$0")" "$@"
}

# need_space DIRECTORY GIB: DIRECTORY, or the nearest one above that exists, has so much room.
need_space() {
    local directory=$1 gib=$2 free_kib
    while [ ! -d "$directory" ]; do directory=$(dirname "$directory"); done
    free_kib=$(df --output=avail -k "$directory" | tail -n 1)
    [ "$free_kib" -ge $((gib * 1048576)) ] ||
        fail "needs $gib GiB free on the disk of $directory, there are $((free_kib * 10 / 1048576 / 10)).$((free_kib * 10 / 1048576 % 10))"
}

check_machine() {
    [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "needs Linux on x86-64, this is $(uname -s) on $(uname -m)"
    command -v apt-get >/dev/null || fail "needs Debian 12 or 13 or Ubuntu 24.04 (no apt-get here); the packages are: $RUNTIME_PACKAGES"
    [ -e "$VENV/.silo-run" ] || [ -e "$VENV/.silo-dev" ] || {
        need_space "$SILO_ROOT" $NEEDED_GIB
        need_space /usr 1
        need_space /var/lib/silo 2
    }
    mkdir -p "$SILO_CACHE" 2>/dev/null || fail "cannot write in $SILO_CACHE: is the checkout on a read-only disk?"
}

# The mirror of a host that is no Debian is asked of mmdebstrap, when the base image is built.
foreign_packages() {
    local ID=""
    # shellcheck source=/dev/null
    [ ! -e /etc/os-release ] || . /etc/os-release
    [ "$ID" = debian ] || echo mmdebstrap
}

# ensure_packages NAME...: install what is missing, with a bar from apt's own status.
ensure_packages() {
    local missing="" name have log=$SILO_CACHE/apt.log
    # dpkg also lists what it has only heard of (un) and what was removed (rc).
    have=" $(dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | awk '$1 == "ii" { print $2 }' | tr '\n' ' ' || true) "
    for name in "$@"; do
        [[ "$have" == *" $name "* ]] || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    : >"$log"
    # An unreachable archive that has nothing to do with Silo must not stop us: what counts is whether the packages come.
    run_apt update || true
    # shellcheck disable=SC2086  # a list of words
    run_apt install --yes --no-install-recommends $missing ||
        fail "installing$missing failed: $(apt_reason "$log") (all of it: $log)"
}

# apt_reason LOG: the line that says most: no network, no space, no such package, another apt at work.
apt_reason() {
    grep -aE 'No space left|enough free space|Temporary failure resolving|Could not connect|Could not get lock' "$1" | head -n 1 ||
        grep -aE '^E:' "$1" | tail -n 1 || echo "apt-get gave no reason"
}

run_apt() {
    local text status
    case $1 in update) text="package lists" ;; *) text="packages" ;; esac
    draw 0 "$text"
    set +e
    # Services of new packages (docker-registry) must not start: the tests start their own.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 LC_ALL=C.UTF-8 apt-get -o APT::Status-Fd=3 -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@" \
        3> >(while IFS=: read -r kind _ percent _; do
            case $kind in
                dlstatus) draw "${percent%%.*}" "$text: downloading" ;;
                pmstatus) draw "${percent%%.*}" "$text: installing" ;;
            esac
        done) >>"$SILO_CACHE/apt.log" 2>&1 </dev/null
    status=$?
    set -e
    end_draw
    return $status
}

# ensure_python run|dev: the virtual environment has the locked packages.
ensure_python() {
    local lock=$SILO_ROOT/requirements/$1.txt stamp=$VENV/.silo-$1 log=$SILO_CACHE/pip.log version want total
    version=$(/usr/bin/python3 -c 'import sys; print(*sys.version_info[:2], sep=".")')
    want="$version $(sha256sum <"$lock")"
    [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return 0
    [ "${version#3.}" -ge 11 ] || fail "needs Python 3.11 or newer as /usr/bin/python3, this is $version"
    # One that was half made, or made for the Python of an older release of the distribution, is made anew.
    if [ "$("$PYTHON" -c 'import pip, sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null)" != "$version" ]; then
        draw 0 "Python environment"
        /usr/bin/python3 -m venv --clear "$VENV" >"$log" 2>&1 || fail "python3 -m venv failed: $(tail -n 1 "$log")"
        end_draw
    fi
    total=$(grep -c '^[a-z].*==' "$lock")
    "$PYTHON" -m pip install --disable-pip-version-check --require-hashes --no-deps -r "$lock" 2>&1 | tee "$log" |
        { count=0
          draw 0 "Python packages"
          while read -r line; do
              case $line in
                  Collecting* | Processing* | Requirement\ already*) count=$((count + 1)) ;;
                  Successfully\ installed*) count=$total ;;
                  *) continue ;;
              esac
              draw $((count * 100 / total > 100 ? 100 : count * 100 / total)) "Python packages"
          done; } || fail "installing the Python packages failed: $(pip_reason "$log") (all of it: $log)"
    end_draw
    printf '%s' "$want" >"$stamp"
}

pip_reason() {
    grep -aoE 'No space left on device|Temporary failure in name resolution|Network is unreachable|THESE PACKAGES DO NOT MATCH THE HASHES' "$1" |
        head -n 1 || grep -aE '^ERROR' "$1" | tail -n 1 || tail -n 1 "$1"
}

# prepare run|dev PACKAGE...: everything above; a second command at the same time waits.
prepare() {
    local began=$SECONDS
    check_machine
    exec 9>"$SILO_CACHE/.set-up"
    flock -n 9 || { echo "waiting for another set-up in $SILO_CACHE" >&2 && flock 9; }
    # shellcheck disable=SC2046,SC2086
    ensure_packages $RUNTIME_PACKAGES $(foreign_packages) "${@:2}"
    ensure_python "$1"
    exec 9>&-
    printf 'set-up: %d s\n' $((SECONDS - began)) >&2
}
