# Sourced by the checks beside it: Python environments with the independent references, made once under build/.
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

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
