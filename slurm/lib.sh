# shellcheck shell=bash
# Shared by the batch scripts beside it, which source it: finds the program, picks the launcher, passes the stop signal
# on to the ranks, and puts a job that stopped after a checkpoint back into the queue.
#
# Nothing is compiled or downloaded here. Every knob below is an environment variable with a default; set it in env.sh,
# or in the shell that submits the job.

set -u

say() { printf '%s: %s\n' "${SLURM_JOB_NAME:-${0##*/}}" "$*" >&2; }
die() { # STATUS TEXT
    local status=$1
    shift
    say "$@"
    exit "$status"
}

[[ -n ${SLURM_JOB_ID:-} ]] || die 2 "this is a batch script; submit it: sbatch $0 ..."

# --- signals --------------------------------------------------------------------------------------------------------

# USR1 means: write a checkpoint and stop. Slurm sends it to this shell alone (--signal=B:), because only srun reaches
# all ranks by itself; srun and mpirun both pass on what they get. Slurm sends CONT with every signal, and a shell that
# traps CONT loses every other USR1, so it is not trapped.
child='' stop_asked='' ended='' interrupted='' stop_before_end=180
on_stop() {
    stop_asked=1 interrupted=1
    [[ -z $child ]] || kill -USR1 "$child" 2>/dev/null
}
# TERM comes to the shell and the ranks alike when the job is cancelled, preempted, requeued or out of time. The shell
# only has to outlive the ranks, which write their checkpoint; what becomes of the job is Slurm's decision.
on_end() {
    ended=1 interrupted=1
    [[ -z $child || -z $stop_asked || -z $(seconds_left) ]] || (($(seconds_left) > 0)) ||
        say "the time limit came before the checkpoint was complete; raise --stop_before_end (now $stop_before_end s)" \
            "and sbatch's --signal=B:USR1@SECONDS"
}
trap on_stop USR1
trap on_end TERM

# --- knobs ----------------------------------------------------------------------------------------------------------

# Settings of the site: modules, network, and what sbatch reads. A copy outside of the repository is fine.
FB3_ENV=${FB3_ENV:-$here/env.sh}
if [[ -e $FB3_ENV ]]; then
    # shellcheck source=slurm/env.sh
    source "$FB3_ENV"
fi

# The program. Build it on a login node, for the processors of the compute nodes.
FB3_DIST=${FB3_DIST:-$here/../build/fb3-dist}
# auto, srun or mpirun. auto is srun where it offers FB3_SRUN_MPI, else mpirun.
FB3_LAUNCHER=${FB3_LAUNCHER:-auto}
# The plugin by which srun's ranks find each other: a name of `srun --mpi=list`, one of PMIx's.
FB3_SRUN_MPI=${FB3_SRUN_MPI:-pmix}
# More words for srun or mpirun, for example --cpu-bind=none or "--mca btl_tcp_if_include eth0".
FB3_SRUN_OPTIONS=${FB3_SRUN_OPTIONS:-}
FB3_MPIRUN_OPTIONS=${FB3_MPIRUN_OPTIONS:-}
# 1 copies data and weights to FB3_STAGE_DIR of every node, once, before training. It pays where the shared file system
# is slow and the data is a prepared .h5. run.yaml then names the copies; a later start may name the originals again.
FB3_STAGE=${FB3_STAGE:-0}
FB3_STAGE_DIR=${FB3_STAGE_DIR:-${TMPDIR:-/tmp}}
# A job goes back into the queue at most so often.
FB3_MAX_REQUEUES=${FB3_MAX_REQUEUES:-100}
# The program takes every FB3_* variable for one of its keys, and warns of those that are none.
export -n FB3_ENV FB3_DIST FB3_LAUNCHER FB3_SRUN_MPI FB3_SRUN_OPTIONS FB3_MPIRUN_OPTIONS FB3_STAGE FB3_STAGE_DIR \
    FB3_MAX_REQUEUES

# --- the job --------------------------------------------------------------------------------------------------------

# SLURM_JOB_ID of an array's last task is the number of the whole array, so tasks are named by array and index.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

job_field() { # NAME: a field without spaces of `scontrol show job`
    scontrol show job "$job" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$1=//p" | head -n 1
}

# The program stops by itself before SLURM_JOB_END_TIME. Older Slurm does not set it, and a job that was submitted from
# another job inherits that one's: what the scheduler says now is right.
set_end_time() {
    local end
    end=$(date -d "$(job_field EndTime)" +%s 2>/dev/null) || end=
    [[ -z $end ]] || export SLURM_JOB_END_TIME=$end
}

# Seconds until the scheduler ends the job; empty without a limit.
seconds_left() { [[ -z ${SLURM_JOB_END_TIME:-} ]] || echo $((SLURM_JOB_END_TIME - $(date +%s))); }

# --- the program's options ------------------------------------------------------------------------------------------

yaml_value() { # FILE KEY: a value on the key's own line
    local value
    value=$(sed -n "s/^$2:[[:space:]]*//p" "$1" | tail -n 1 | sed 's/[[:space:]]\{1,\}#.*$//; s/[[:space:]]*$//')
    case $value in
    \"*\" | \'*\') value=${value:1:${#value}-2} ;;
    null | '~') value= ;;
    esac
    # ${VAR} and ${VAR:-x} mean in the YAML what they mean here; anything else that the shell would act on does not.
    if [[ $value == *'$'* ]]; then
        [[ $value =~ ^[A-Za-z0-9_./:,=+{}\$-]*$ ]] || die 2 "$1: cannot tell what $2: $value is; give --$2"
        eval "value=$value"
    fi
    printf '%s\n' "$value"
}

# option KEY DEFAULT ARGUMENT...: what the program will take for KEY. As there, the command line wins over the YAML, and
# the YAML over the environment. The YAML is the first argument, FB3_CONFIG, or ./fb3.yaml.
option() {
    local key=$1 value=$2 variable=FB3_${1^^} config=${FB3_CONFIG:-fb3.yaml}
    shift 2
    [[ ${1:---} == --* ]] || config=$1
    value=${!variable:-$value}
    if [[ -f $config ]] && grep -q "^$key:" "$config"; then value=$(yaml_value "$config" "$key") || exit; fi
    while (($# > 0)); do
        case $1 in
        --"$key"=*) value=${1#*=} ;;
        --"$key") value=${2-} ;;
        esac
        shift
    done
    printf '%s\n' "$value"
}

# --- launcher -------------------------------------------------------------------------------------------------------

srun_offers() { srun --mpi=list 2>&1 | tr -s ',[:space:]' '\n' | grep -qx "$FB3_SRUN_MPI"; }
open_mpi_mpirun() { mpirun --version 2>/dev/null | grep -q 'Open MPI'; }

check_program() {
    local missing
    [[ -x $FB3_DIST ]] ||
        die 2 "there is no program $FB3_DIST; build it on a login node, or set FB3_DIST"
    FB3_DIST=$(readlink -f "$FB3_DIST")
    missing=$(ldd "$FB3_DIST" 2>/dev/null | sed -n 's/^[[:space:]]*\(.*\) => not found.*/\1/p' | paste -sd ' ')
    [[ -z $missing ]] ||
        die 2 "$FB3_DIST needs libraries that ${HOSTNAME} lacks: $missing; load their modules in $FB3_ENV"
}

choose_launcher() {
    [[ $FB3_SRUN_MPI == pmix* ]] ||
        die 2 "FB3_SRUN_MPI=$FB3_SRUN_MPI: Open MPI's ranks find each other by PMIx only;" \
            "name a pmix plugin of srun --mpi=list, or use FB3_LAUNCHER=mpirun"
    case $FB3_LAUNCHER in
    auto)
        if srun_offers; then
            FB3_LAUNCHER=srun
        elif open_mpi_mpirun; then
            FB3_LAUNCHER=mpirun
        else
            die 2 "nothing here can start the ranks: srun --mpi=list does not offer $FB3_SRUN_MPI," \
                "and there is no mpirun of Open MPI; load its module in $FB3_ENV"
        fi
        ;;
    srun)
        srun_offers ||
            die 2 "FB3_LAUNCHER=srun, but srun --mpi=list does not offer $FB3_SRUN_MPI;" \
                "use FB3_LAUNCHER=mpirun, or name a pmix plugin of that list in FB3_SRUN_MPI"
        ;;
    mpirun)
        open_mpi_mpirun ||
            die 2 "FB3_LAUNCHER=mpirun, but there is no mpirun of Open MPI in PATH; load its module in $FB3_ENV"
        ;;
    *) die 2 "FB3_LAUNCHER=$FB3_LAUNCHER is not one of auto, srun, mpirun" ;;
    esac
    local more
    if [[ $FB3_LAUNCHER == srun ]]; then
        read -ra more <<<"$FB3_SRUN_OPTIONS"
        launcher=(srun "--mpi=$FB3_SRUN_MPI" --kill-on-bad-exit=1 ${more[@]+"${more[@]}"})
    else
        read -ra more <<<"$FB3_MPIRUN_OPTIONS"
        launcher=(mpirun ${more[@]+"${more[@]}"})
    fi
}

# What makes a launch poor or wrong without an error of its own.
check_allocation() {
    local gpus=${SLURM_GPUS_ON_NODE:-0} tasks=${SLURM_TASKS_PER_NODE:-1}
    tasks=${tasks%%[!0-9]*}
    ((gpus <= tasks)) ||
        say "warning: $gpus GPUs on this node and $tasks rank(s): each rank takes one; ask for --ntasks-per-node=$gpus"
    # mpirun starts one Slurm task per node, so Slurm shows the ranks of the other nodes one GPU in all.
    [[ $FB3_LAUNCHER != mpirun || -z ${SLURM_GPUS_PER_TASK:-} ]] || ((${SLURM_NNODES:-1} == 1)) ||
        die 2 "--gpus-per-task does not work with mpirun on several nodes; ask for --gpus-per-node"
}

prepare() {
    local kill_wait
    check_program
    choose_launcher
    check_allocation
    set_end_time
    # Since 22.05 srun does not take this from sbatch by itself.
    [[ -z ${SLURM_CPUS_PER_TASK:-} ]] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
    # After sbatch --export=NONE, srun would keep this shell's variables, and so the modules', from the ranks.
    export SLURM_EXPORT_ENV=ALL
    # When Slurm ends a job, mpirun kills its ranks after two seconds, or after twice this number (measured with Open
    # MPI 4.1). To complete a checkpoint they need all of the time that Slurm gives, less a moment for mpirun to end.
    kill_wait=$(scontrol show config 2>/dev/null | sed -n 's/^KillWait *= *\([0-9]*\).*/\1/p')
    kill_wait=${kill_wait:-30}
    : "${OMPI_MCA_odls_base_sigkill_timeout:=$((kill_wait > 3 ? (kill_wait - 1) / 2 : 1))}"
    export OMPI_MCA_odls_base_sigkill_timeout
}

# --- running --------------------------------------------------------------------------------------------------------

# start_ranks VERB ARGUMENT...: runs the program on all ranks and sets `status`. The launcher is in the background,
# because a shell runs no trap while it waits for a command in the foreground.
start_ranks() {
    status=75
    [[ -z $stop_asked ]] || return 0
    "${launcher[@]}" "$FB3_DIST" "$@" &
    child=$!
    [[ -z $stop_asked ]] || kill -USR1 "$child" 2>/dev/null # it came before `child` was set
    while :; do
        interrupted=
        wait "$child"
        status=$?
        [[ -n $interrupted ]] || break # else the trap ended the wait, not the child
    done
    child=
}

# ended_well RESULT: the file, or what every training ends with in the run directory, is newer than the file $before.
ended_well() {
    [[ ! -f $1 ]] || { [[ $1 -nt $before ]]; return; }
    [[ -n $(find "$1" -maxdepth 2 -newer "$before" \( -name report.html -o -name summary.json \) 2>/dev/null) ]]
}

# launch RESULT VERB ARGUMENT...: the same; RESULT is the file or the run directory that it writes. A job that runs again
# tries twice: a node that lost its power keeps the socket of srun's PMIx plugin, which has the numbers of job and step,
# so when the job comes back to that node, its step of the same number cannot start there, and the next one can. (Slurm
# 22.05: "Cannot bind() UNIX socket" in slurmd's log, and srun's status is 137, or even 0.)
launch() {
    local result=$1 began=$SECONDS folder before tries
    shift
    if ((${SLURM_RESTART_COUNT:-0} == 0)); then
        start_ranks "$@"
        return
    fi
    folder=$result
    [[ -d $folder ]] || folder=$(dirname "$result")
    mkdir -p "$folder" || exit 1
    before=$(mktemp "$folder/.start-XXXXXX") || exit 1
    for tries in 1 2; do
        start_ranks "$@"
        if ((status == 0)); then
            ended_well "$result" && break
            status=1
        elif ((status <= 128)); then
            break
        fi
        if ((tries == 2 || SECONDS - began > 180)) || [[ -n $stop_asked$ended ]]; then break; fi
        say "the ranks did not start, or were killed soon after; once more"
    done
    rm -f "$before"
}

# One small command on every node, whatever else runs there.
on_each_node() {
    srun --mpi=none --overlap --nodes="${SLURM_NNODES:-1}" --ntasks="${SLURM_NNODES:-1}" --ntasks-per-node=1 "$@"
}

# A node may be slow to answer for once, just after it came up for example. One that is lost never answers.
nodes_answer() {
    for _ in 1 2 3; do
        on_each_node true 2>/dev/null && return
    done
    return 1
}

# --- staging --------------------------------------------------------------------------------------------------------

# stage ARGUMENT...: sets `staged` to the options that name the copies. Where copying fails, the originals are used.
stage_directory=$FB3_STAGE_DIR/fb3-$job
stage() {
    local key value path files copies folder words=() pairs=()
    staged=()
    [[ $FB3_STAGE == 1 ]] || return 0
    for key in train_file validation_file model_name_or_path tokenizer; do
        value=$(option "$key" '' "$@") || exit
        files=("$value")
        if [[ $key == train_file && $value == *,* ]]; then # several: a,b or [a, b]
            value=${value#\[} value=${value%\]}
            IFS=, read -ra files <<<"${value//, /,}"
        fi
        copies=
        for path in "${files[@]}"; do
            [[ -n $path && -e $path ]] || continue 2 # a name of the Hugging Face cache is read where it is
            # a directory for each: two inputs may have the same name
            folder=$stage_directory/$key${copies:+-$((${#pairs[@]} / 2))}
            pairs+=("$path" "$folder")
            copies+=${copies:+,}$folder/$(basename "$path")
        done
        words+=("--$key" "$copies")
    done
    ((${#pairs[@]} > 0)) || return 0
    # shellcheck disable=SC2016 # the node expands it
    if on_each_node bash -c 'while (($# > 0)); do mkdir -p "$2" && cp -rL "$1" "$2/" || exit; shift 2; done' \
        stage "${pairs[@]}"; then
        say "inputs are copied to $stage_directory of each node"
        staged=("${words[@]}")
    else
        say "warning: the inputs could not be copied to $stage_directory of each node; training reads the originals"
    fi
}

# A job that is killed leaves its copies to the site's own cleaning of TMPDIR.
unstage() { [[ $FB3_STAGE != 1 ]] || on_each_node rm -rf "$stage_directory"; }

# --- training -------------------------------------------------------------------------------------------------------

# The steps in the newest checkpoints of a run directory, all folds together.
progress() {
    local log step sum=0
    for log in "$1"/fold-*/metrics.jsonl; do
        [[ -e $log ]] || continue
        step=$(grep '^{"event":"checkpoint"' "$log" | tail -n 1 | sed 's/.*"step":\([0-9]*\).*/\1/')
        sum=$((sum + ${step:-0}))
    done
    echo "$sum"
}

# requeue DONE: back into the queue, unless that would go on for ever. DONE: whether this start has done any steps.
requeue() {
    local left
    left=$(seconds_left)
    if [[ -n $ended ]]; then
        say "ended by Slurm, which decides whether the job runs again; submitted again, it goes on"
    elif [[ -z $1 && -n $left ]] && ((left <= stop_before_end + 90)); then
        die 1 "the time limit is too short: from start to stop not one step was completed; raise --time, or lower" \
            "--stop_before_end (now $stop_before_end s) and sbatch's --signal=B:USR1@SECONDS; the job is not requeued"
    elif ((${SLURM_RESTART_COUNT:-0} >= FB3_MAX_REQUEUES)); then
        say "stopped, and was put back into the queue $FB3_MAX_REQUEUES times already (FB3_MAX_REQUEUES);" \
            "submit it again, and it goes on"
    elif scontrol requeue "$job"; then
        say "back in the queue as job $job; it goes on from its last checkpoint"
    else
        say "stopped, and Slurm does not take the job back; submit it again, and it goes on"
    fi
    exit 75
}

# train OUTPUT_DIR ARGUMENT...: trains until it is done or has to stop; returns only when it is done.
train() {
    local output_dir=$1 before left near_end='' can_ask=''
    shift
    stop_before_end=$(option stop_before_end 180 "$@") || exit
    left=$(seconds_left)
    [[ -z $left ]] || ((left > stop_before_end)) ||
        die 2 "the time limit is too short: $left s are left, and training stops $stop_before_end s before the end;" \
            "raise --time, or lower --stop_before_end and sbatch's --signal=B:USR1@SECONDS"
    before=$(progress "$output_dir")
    nodes_answer && can_ask=1
    stage "$@"
    launch "$output_dir" train "$@" ${staged[@]+"${staged[@]}"}
    unstage
    left=$(seconds_left)
    [[ -z $left ]] || ((left > stop_before_end + 90)) || near_end=1
    # On a stop every rank exits with 75. The launcher kills those that are slower than the first one to leave, and a
    # signal during the start kills ranks that have no handler yet; both are stops, and the last checkpoint is whole.
    if ((status > 128)) && [[ -n $stop_asked$near_end ]]; then status=75; fi
    # mpirun says this and that when Slurm ends the job.
    if ((status != 0)) && [[ -n $ended ]]; then status=75; fi
    if ((status == 75)); then
        (($(progress "$output_dir") > before)) && requeue 1
        requeue ''
    fi
    # When a node is lost, mpirun may know it minutes before Slurm does, which requeues only jobs that still run.
    if ((status != 0 && status != 2)) && [[ -n $can_ask ]] && ! nodes_answer; then
        say "failed (status $status), and not every node answers"
        requeue 1
    fi
    ((status == 0)) || exit "$status"
}
