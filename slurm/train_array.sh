#!/usr/bin/env bash
# Trains one fold per array task, each in an allocation of its own; a job that waits for all of them then makes the
# out-of-fold table and, with a test_file, the folds' average prediction (gather.sh).
#
#   sbatch [options] slurm/train_array.sh [CONFIG.yaml] [--key value ...]
#   sbatch --array=0-4 --ntasks=4 --gpus-per-node=4 slurm/train_array.sh fb3.yaml --folds 5
#
# The array's indices are the folds; a run directory has one writer, so each task works in OUTPUT_DIR/task-FOLD until
# its fold is gathered into OUTPUT_DIR. The rest is as in train_folds.sh. When a task has failed, submit the same again:
# complete folds are not trained twice.
#
#SBATCH --job-name=fb3-fold
#SBATCH --output=%x-%A_%a.log --open-mode=append
#SBATCH --array=0-2
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue

# Slurm runs a copy of this file; the original, with lib.sh beside it, is where sbatch found it.
here=$(dirname "$0")
if [[ ! -e $here/lib.sh ]]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p' | head -n 1)
    here=$(dirname "${here%" $*"}")
fi
# shellcheck source=slurm/lib.sh
source "$here/lib.sh"

# 0 leaves gathering to you: sbatch slurm/gather.sh with the same arguments.
FB3_GATHER=${FB3_GATHER:-1}
# More options of sbatch for the job that gathers, for example "--time=10 --partition=short".
FB3_GATHER_OPTIONS=${FB3_GATHER_OPTIONS:-}
export -n FB3_GATHER FB3_GATHER_OPTIONS

# It asks for one task with the same cores, and one GPU where this job has some, in the same partition and account.
submit_gather() {
    local more number options=(--parsable --ntasks=1 --time=60)
    options+=("--dependency=afterok:$SLURM_ARRAY_JOB_ID" --kill-on-invalid-dep=yes)
    [[ -z ${SLURM_JOB_PARTITION:-} ]] || options+=("--partition=$SLURM_JOB_PARTITION")
    [[ -z ${SLURM_JOB_ACCOUNT:-} ]] || options+=("--account=$SLURM_JOB_ACCOUNT")
    [[ -z ${SLURM_JOB_QOS:-} ]] || options+=("--qos=$SLURM_JOB_QOS")
    [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || options+=("--cpus-per-task=$SLURM_CPUS_PER_TASK")
    [[ -z ${SLURM_GPUS_ON_NODE:-} ]] || options+=(--gpus-per-node=1)
    read -ra more <<<"$FB3_GATHER_OPTIONS"
    options+=(${more[@]+"${more[@]}"})
    # in a subshell without this job's SLURM_* variables, which sbatch would hand on
    if number=$(
        for variable in ${!SLURM_@}; do
            [[ $variable == SLURM_CONF ]] || unset "$variable"
        done
        export FB3_ENV FB3_DIST FB3_LAUNCHER FB3_SRUN_MPI FB3_SRUN_OPTIONS FB3_MPIRUN_OPTIONS
        sbatch "${options[@]}" "$here/gather.sh" "$@"
    ); then
        say "the folds are gathered by job ${number%;*}"
    else
        say "warning: this node cannot submit jobs; when the folds are trained: sbatch $here/gather.sh $*"
    fi
}

[[ -n ${SLURM_ARRAY_TASK_ID:-} ]] || die 2 "not an array: sbatch --array=0-2 slurm/train_array.sh ..."
[[ -z $(option train_folds '' "$@") ]] || die 2 "train_folds is what the array's indices say: sbatch --array=0,2 ..."
prepare
fold=$SLURM_ARRAY_TASK_ID
output_dir=$(option output_dir outputs "$@") || exit
# The first task submits it, once.
if ((FB3_GATHER == 1 && fold == ${SLURM_ARRAY_TASK_MIN:-0} && ${SLURM_RESTART_COUNT:-0} == 0)); then
    submit_gather "$@"
fi
if [[ -e $output_dir/fold-$fold ]]; then
    say "fold $fold is trained and gathered already"
    exit 0
fi
train "$output_dir/task-$fold" "$@" --output_dir "$output_dir/task-$fold" --train_folds "$fold"
