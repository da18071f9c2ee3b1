# Sourced by the checks beside it: Python environments with the independent references, made once under build/, and an
# apt for the packages of Debian 13.
#
# FB3_ORACLE_TORCH and FB3_ORACLE_TOKENIZER name a Python to be used instead.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
: "${FB3_BUILD_DIR:=$PWD/build}" "${FB3_SHARED_DIR:=$PWD/../shared}"
export FB3_SOURCE_DIR=$PWD FB3_BUILD_DIR FB3_SHARED_DIR HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export FB3_BF16=false # float: what the references compute in
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

skip() {
    echo "skipped: $*"
    exit 77
}

essays=$FB3_SHARED_DIR/data/ellipse/train.csv
tokenizer=$FB3_SHARED_DIR/data/deberta-v3-tokenizer
need_essays() { [[ -f $essays && -f $tokenizer/spm.model ]] || skip "$essays and $tokenizer are not there"; }

# oracle NAME IMPORTS PACKAGE...: sets $python to an interpreter in which `import IMPORTS` works.
oracle() {
    local name=$1 imports=$2 given="FB3_ORACLE_${1^^}"
    shift 2
    python=${!given:-$FB3_BUILD_DIR/oracle-$name/bin/python}
    if [[ ! -x $python ]]; then
        python3 -m venv "$FB3_BUILD_DIR/oracle-$name"
        "$python" -m pip install --quiet "$@"
    fi
    "$python" -c "import $imports" || skip "the $name oracle does not import $imports"
}
torch_oracle() {
    oracle torch "torch, transformers, safetensors, h5py, yaml" torch==2.13.0 transformers==5.23.0 numpy safetensors \
        sentencepiece h5py pyyaml
}
tokenizer_oracle() { oracle tokenizer "transformers, sentencepiece" transformers==4.57.1 sentencepiece protobuf; }

# debian13_apt COMPONENT...: from here on apt-get is one of its own in $apt, for these components of Debian 13. The
# system's lists, cache and status are not touched.
debian13_apt() {
    local mirror
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/$') ||
        skip "a Debian mirror in apt's sources"
    apt=$scratch/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie $*" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "0";
Acquire::Languages "none";
Debug::NoLocking "1";
EOF
    export APT_CONFIG=$apt/apt.conf
    apt-get -qq update >"$scratch/log" 2>&1 || { tail -n 5 "$scratch/log"; skip "the package lists of Debian 13"; }
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
