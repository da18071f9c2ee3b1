#!/usr/bin/env bash
# Makes one run directory of the folds that train_array.sh trained: moves them from OUTPUT_DIR/task-*/fold-* to
# OUTPUT_DIR/fold-*, writes the out-of-fold table and the summary, and, with a test_file, OUTPUT_DIR/submission.csv.
# train_array.sh submits it; by hand, with the arguments that the array had:
#
#   sbatch [options] slurm/gather.sh [CONFIG.yaml] [--key value ...]
#
#SBATCH --job-name=fb3-gather
#SBATCH --output=%x-%j.log --open-mode=append
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
test_file=$(option test_file '' "$@") || exit

# What the folds have in common comes from the first of them; a second try finds what the first one left.
for task in "$output_dir"/task-*; do
    fold=$task/fold-${task##*-}
    [[ -d $fold ]] || continue
    if ! grep -q '^{"event":"end"' "$fold/metrics.jsonl"; then
        say "warning: $fold is not complete and stays where it is; submit train_array.sh again"
        continue
    fi
    for file in folds.csv data.h5 validation.h5; do
        [[ -e $output_dir/$file || ! -e $task/$file ]] || cp "$task/$file" "$output_dir/$file"
    done
    if [[ ! -e $output_dir/run.yaml ]]; then
        {
            grep -v '^output_dir:\|^train_folds:' "$task/run.yaml"
            printf "output_dir: '%s'\ntrain_folds: all\n" "${output_dir//\'/\'\'}"
        } >"$output_dir/run.yaml.part"
        mv "$output_dir/run.yaml.part" "$output_dir/run.yaml"
    fi
    mv -T "$fold" "$output_dir/${fold##*/}" || die 1 "cannot move $fold to $output_dir"
    rm -rf "$task"
done

folds=
for fold in "$output_dir"/fold-*; do
    [[ ! -d $fold ]] || folds+=${folds:+,}${fold##*-}
done
[[ -n $folds ]] || die 2 "$output_dir holds no trained folds; sbatch slurm/train_array.sh comes first"

# All folds are complete, so this trains nothing and writes the tables.
launch "$output_dir" train "$@" --output_dir "$output_dir" --train_folds "$folds"
((status == 0)) || exit "$status"
if [[ -n $test_file ]]; then
    launch "$output_dir/submission.csv" predict "$output_dir" "$output_dir/run.yaml" --test_file "$test_file" \
        --output_file "$output_dir/submission.csv"
fi
exit "$status"
