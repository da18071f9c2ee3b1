#!/usr/bin/env bash
# Trains with other settings in each array task: one line of a table each.
#
#   sbatch --array=1-4 [options] slurm/sweep.sh GRID.tsv [CONFIG.yaml] [--key value ...]
#
# GRID.tsv has keys in its first line and their values in the lines below, with tabs between them; an empty cell leaves
# a key alone, and lines that begin with # are not counted:
#
#   learning_rate	seed	loss_type
#   1e-5	42	rmse
#   2e-5	42	smooth_l1
#
# Task 1 is the first line of values. It works in OUTPUT_DIR/sweep-1 unless the table has a column output_dir; submit
# the same again, and what is complete is not trained twice. The rest is as in train_folds.sh.
#
#SBATCH --job-name=fb3-sweep
#SBATCH --output=%x-%A_%a.log --open-mode=append
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

grid=${1:-}
[[ -n $grid ]] || die 2 "no table: sbatch --array=1-4 slurm/sweep.sh GRID.tsv [CONFIG.yaml] [--key value ...]"
[[ -r $grid ]] || die 2 "cannot read $grid"
shift
mapfile -t lines < <(grep -v '^[[:space:]]*\(#.*\)\?$' "$grid" | tr -d '\r')
count=$((${#lines[@]} - 1))
((count >= 1)) || die 2 "$grid has no line of values below its line of keys"
[[ -n ${SLURM_ARRAY_TASK_ID:-} ]] || die 2 "not an array: sbatch --array=1-$count slurm/sweep.sh $grid $*"
((SLURM_ARRAY_TASK_ID >= 1 && SLURM_ARRAY_TASK_ID <= count)) ||
    die 2 "$grid has $count lines of values and this is task $SLURM_ARRAY_TASK_ID:" \
        "sbatch --array=1-$count slurm/sweep.sh $grid $*"

# Splits a line at each tab; read alone would take several tabs for one.
cells() { tr '\t' '\n' <<<"$1"; }
mapfile -t keys < <(cells "${lines[0]}")
mapfile -t values < <(cells "${lines[SLURM_ARRAY_TASK_ID]}")
((${#values[@]} <= ${#keys[@]})) || die 2 "$grid: line $SLURM_ARRAY_TASK_ID has more cells than there are keys"

prepare
output_dir=$(option output_dir outputs "$@") || exit
output_dir+=/sweep-$SLURM_ARRAY_TASK_ID
overrides=()
for i in "${!values[@]}"; do
    [[ -n ${values[i]} ]] || continue
    overrides+=("--${keys[i]}" "${values[i]}")
    [[ ${keys[i]} != output_dir ]] || output_dir=${values[i]}
done
say "task $SLURM_ARRAY_TASK_ID of $count: ${overrides[*]}"
train "$output_dir" "$@" --output_dir "$output_dir" "${overrides[@]}"
