#!/usr/bin/env bash
# Predicts a test file with the models of a run, and averages them.
#
#   sbatch [options] slurm/predict.sh RUN_DIR --test_file test.csv --output_file submission.csv [--key value ...]
#
# The arguments are those of fb3-dist predict. It is short, and starts from the beginning when it is run again.
#
#SBATCH --job-name=fb3-predict
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --time=01:00:00
#SBATCH --requeue

# Slurm runs a copy of this file; the original, with lib.sh beside it, is where sbatch found it.
here=$(dirname "$0")
if [[ ! -e $here/lib.sh ]]; then
    here=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=//p' | head -n 1)
    here=$(dirname "${here%" $*"}")
fi
# shellcheck source=slurm/lib.sh
source "$here/lib.sh"

prepare
output_file=$(option output_file submission.csv "$@") || exit
launch "$output_file" predict "$@"
exit "$status"
