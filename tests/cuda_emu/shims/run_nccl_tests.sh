#!/bin/sh
# Runs the NCCL shim's tests on several ranks: run_nccl_tests.sh <test_shims>. Each one has its own time limit.
set -u
program=$1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none # containers without CMA
failed=0

run() { timeout -k 5 60 mpirun --oversubscribe -n "$@" 2>&1; }

# passes <ranks> <arguments>: the program says that nothing failed
passes() {
    ranks=$1; shift
    if output=$(run "$ranks" "$program" nccl "$@"); then echo "ok      $ranks ranks: $*"
    else echo "FAILED  $ranks ranks: $*"; echo "$output"; failed=1; fi
}

# dies <text> <ranks> <arguments>: the program ends with this text
dies() {
    text=$1 ranks=$2; shift 2
    if output=$(run "$ranks" "$program" nccl "$@"); then echo "FAILED  $ranks ranks: $* passed"; failed=1
    elif echo "$output" | grep -q "$text"; then echo "ok      $ranks ranks: $* dies"
    else echo "FAILED  $ranks ranks: $* died otherwise"; echo "$output"; failed=1; fi
}

for ranks in 1 2 3 4; do passes $ranks basic; done
passes 2 absent
passes 3 absent
dies 'collective 0 differs.*count 4.*count 3\|collective 0 differs.*count 3.*count 4' 2 mismatch count
dies 'collective 0 differs.*type 7.*type 8\|collective 0 differs.*type 8.*type 7' 2 mismatch type
dies 'collective 0 differs.*ncclAllReduce.*ncclBroadcast\|collective 0 differs.*ncclBroadcast.*ncclAllReduce' 2 mismatch kind
for kind in error async hang init; do
    export CUDAEMU_NCCL_FAIL=1:2:$kind
    passes 2 fault $kind
    unset CUDAEMU_NCCL_FAIL
done
exit $failed
