#!/usr/bin/env bash
# Trains all folds in one allocation and writes the out-of-fold table.
#
#   sbatch [options] slurm/train_folds.sh [CONFIG.yaml] [--key value ...]
#   sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 slurm/train_folds.sh fb3.yaml
#
# One rank per task: ask for as many tasks as there are GPUs, or on CPUs for one task per socket with its cores. Folds
# are spread over the nodes (--fold_groups). The job stops with a checkpoint before its time is up, or when Slurm sends
# USR1, goes back into the queue, and continues.
#
#SBATCH --job-name=fb3-train
#SBATCH --output=%x-%j.log --open-mode=append
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

prepare
output_dir=$(option output_dir outputs "$@") || exit
train "$output_dir" "$@"
