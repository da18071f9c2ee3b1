# Sourced by the scripts beside it: goes to the repository's root, installs what is missing, limits time.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# mpirun refuses root without both of these; containers usually are root.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

say() { printf '\n=== %s\n' "$*"; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# need PURPOSE...: installs the Debian packages of these purposes (tools/packages.txt) that are not there yet.
need() {
    local purpose package missing=() as_root=()
    while read -r purpose package; do
        [[ " $* " == *" $purpose "* ]] || continue
        [[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || missing+=("$package")
    done < <(grep -v '^#' tools/packages.txt)
    ((${#missing[@]} == 0)) && return
    command -v apt-get >/dev/null || die "needs Debian's ${missing[*]}; install their counterparts by hand"
    if ((EUID != 0)); then
        command -v sudo >/dev/null || die "needs root or sudo to install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    # in runlevel 1 packages do not start their daemons
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# within SECONDS COMMAND...: the command, ended and called failed when it takes longer.
within() {
    local limit=$1 status=0
    shift
    timeout --kill-after=10 "$limit" "$@" || status=$?
    ((status != 124 && status != 137)) || printf '%s: not finished after %s s: %s\n' "$(basename "$0")" "$limit" "$*" >&2
    return "$status"
}

# build PRESET OPTION...: configure and build with as many jobs as there are cores.
build() {
    local preset=$1
    shift
    within 120 cmake --preset "$preset" "$@"
    within 900 cmake --build --preset "$preset" --parallel "$(nproc)"
}
