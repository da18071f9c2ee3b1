#!/usr/bin/env bash
# A real Slurm cluster on one machine, for tests: munged, slurmctld and a slurmd per virtual node, without systemd,
# without cgroups, with pretended GPUs. Needs root, and Debian's slurmctld slurmd slurm-client munge iproute2.
#
#   slurm_up.sh up   DIR             writes configuration and state under DIR, starts, waits until all nodes are idle
#   slurm_up.sh node DIR NODE CMD..  runs CMD inside a virtual node
#   slurm_up.sh kill DIR NODE        crashes a node: all its processes are gone at once; boot DIR NODE brings it back
#   slurm_up.sh link DIR NODE down   cuts a node's network; up mends it
#   slurm_up.sh down DIR             stops what `up` started, by process id and start time; the logs stay in DIR/log
#
# Submit with DIR/bin first in PATH (wrappers of sbatch, srun and so on) and the variables of DIR/env, one a line.
#
# A node is a network, UTS, IPC, mount and PID namespace: own host name (node1, node2, ...), own address, own /dev/shm,
# own processes. slurmctld and the submitting commands share one more network namespace, which holds the bridge. The
# machine's own network is not touched, and several clusters may run side by side.
#
# Settings, from the environment:
NODES=${NODES:-2}             # virtual nodes
CPUS=${CPUS:-16}              # cores that a node claims, whatever the machine has
MEMORY=${MEMORY:-262144}      # MB that a node claims
GPUS=${GPUS:-0}               # GPUs that a node pretends to have: null devices
KILL_WAIT=${KILL_WAIT:-5}     # seconds between TERM and KILL
MPI_DEFAULT=${MPI_DEFAULT:-pmix}
EXTRA_CONF=${EXTRA_CONF:-}    # more lines for slurm.conf
set -u
PATH=$PATH:/usr/sbin:/sbin
self=$(readlink -f "$0")
subnet=10.77.0

die() {
    echo "slurm_up: $*" >&2
    exit 1
}

# eventually SECONDS COMMAND...: until the command succeeds
eventually() {
    local tries=$(($1 * 20)) i
    shift
    for ((i = 0; i < tries; i++)); do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}

# --- processes: kept as "pid start-time name", so that a pid that was given to another process is never signalled -----

# Nothing for a process that has ended, whether or not anybody has noticed.
start_time() {
    local line fields
    { line=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
    read -ra fields <<<"${line##*) }" # the name of a process may hold spaces
    [[ ${fields[0]} == Z ]] || echo "${fields[19]}"
}
remember() { echo "$1 $(start_time "$1") $2" >>"$dir/pids"; }
is_gone() { [[ $(start_time "$1") != "$2" ]]; }

# background NAME COMMAND...: sets `pid`
background() {
    local name=$1
    shift
    setsid "$@" >>"$dir/log/$name.out" 2>&1 </dev/null &
    pid=$!
    disown
    remember "$pid" "$name"
}

# stop PATTERN: kills the processes of these names, youngest first, and waits until they are gone
stop() {
    local pid start name
    while read -r pid start name; do
        # shellcheck disable=SC2053 # a pattern
        [[ $name == $1 ]] || continue
        is_gone "$pid" "$start" || kill -KILL "$pid"
        eventually 10 is_gone "$pid" "$start" || echo "slurm_up: $name ($pid) does not end" >&2
    done < <(tac "$dir/pids")
    return 0
}

# --- configuration ----------------------------------------------------------------------------------------------------

write_configuration() {
    local i gres=
    mkdir -p "$dir"/{bin,dev,log,munge,run,spool,state,tmp}
    chmod 755 "$dir" "$dir"/{bin,dev,log,munge,run,spool}
    ((GPUS == 0)) || gres=" Gres=gpu:$GPUS"
    {
        cat <<END
ClusterName=test
SlurmctldHost=ctl($subnet.254)
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
# a directory of its own for each node: PMIx's plugin makes files of fixed names there
TmpFS=$dir/tmp/%n
AuthType=auth/munge
CredType=cred/munge
# a job that is requeued waits until its old credential has expired; 5 s is the least
AuthInfo=socket=$dir/munge/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=2
# nodes may claim more than the machine has
SlurmdParameters=config_overrides
MpiDefault=$MPI_DEFAULT
KillWait=$KILL_WAIT
# a dead node is noticed after about so many seconds, and is welcome when it comes back
SlurmdTimeout=15
ReturnToService=2
InactiveLimit=0
MinJobAge=3600
MailProg=/bin/true
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
END
        ((GPUS == 0)) || echo "GresTypes=gpu"
        for ((i = 1; i <= NODES; i++)); do
            echo "NodeName=node$i NodeAddr=$subnet.$i CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS" \
                "ThreadsPerCore=1 RealMemory=$MEMORY$gres State=UNKNOWN"
        done
        [[ -z $EXTRA_CONF ]] || printf '%s\n' "$EXTRA_CONF"
    } >"$dir/slurm.conf"
    # Named, because slurmd dies where it finds both generations of cgroups or none; the plugins above do not use it.
    printf '%s\n' CgroupPlugin=cgroup/v1 CgroupAutomount=no >"$dir/cgroup.conf"
    for ((i = 0; i < GPUS; i++)); do
        mknod -m 666 "$dir/dev/gpu$i" c 1 3
        echo "Name=gpu File=$dir/dev/gpu$i"
    done >"$dir/gres.conf"
    {
        printf '127.0.0.1 localhost\n%s ctl\n' "$subnet.254"
        for ((i = 1; i <= NODES; i++)); do echo "$subnet.$i node$i"; done
    } >"$dir/hosts"
    # mpirun would bind the first rank of each virtual node to the same core, and more ranks than cores must not spin.
    # Open MPI names its files after host name, process id and job, all of which come again: they go where a new node
    # has nothing, or it would find those of the node before.
    cat >"$dir/env" <<END
SLURM_CONF=$dir/slurm.conf
OMPI_ALLOW_RUN_AS_ROOT=1
OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
OMPI_MCA_hwloc_base_binding_policy=none
OMPI_MCA_mpi_yield_when_idle=1
OMPI_MCA_orte_tmpdir_base=/dev/shm
END
}

# Commands as on a login node. Inside of a job, which inherits PATH, they call the real ones.
write_wrappers() {
    local command real
    for command in sbatch srun salloc squeue scontrol scancel sinfo; do
        real=$(type -P "$command") || die "$command is not installed"
        cat >"$dir/bin/$command" <<END
#!/bin/sh
export SLURM_CONF=$dir/slurm.conf
[ "\$(readlink /proc/self/ns/net)" != "$(readlink /proc/self/ns/net)" ] || exec nsenter -t $ctl -n -u -- $real "\$@"
exec $real "\$@"
END
        chmod 755 "$dir/bin/$command"
    done
}

# --- nodes ------------------------------------------------------------------------------------------------------------

# The first process of a node, in its namespaces. When slurmd ends, it ends, and with it all of the node.
node_main() {
    local name=$1 outer_pid
    read -r outer_pid _ </proc/self/stat # still the machine's /proc
    hostname "$name"
    mount -t proc proc /proc
    mount -t tmpfs -o mode=1777,size=50% tmpfs /dev/shm
    mount --bind "$dir/hosts" /etc/hosts
    echo "$outer_pid" >"$dir/run/$name.pid.part"
    mv "$dir/run/$name.pid.part" "$dir/run/$name.pid"
    eventually 30 test -e "$dir/run/$name.network" || exit 1
    slurmd -D -N "$name" -f "$dir/slurm.conf" &
    wait $!
}

boot_node() { # NUMBER
    local name=node$1 node
    # as a machine that was switched on: what PMIx's plugin left of a job keeps the same job from starting there again
    rm -rf "$dir/run/$name.pid" "$dir/run/$name.network" "$dir/tmp/$name"
    mkdir -p "$dir/spool/$name" "$dir/tmp/$name"
    chmod 1777 "$dir/tmp/$name"
    background "$name-outside" unshare --net --uts --ipc --mount --pid --fork --kill-child=KILL \
        bash "$self" node_main "$dir" "$name"
    eventually 10 test -s "$dir/run/$name.pid" || die "no namespaces for $name: $(<"$dir/log/$name-outside.out")"
    node=$(<"$dir/run/$name.pid")
    remember "$node" "$name"
    (
        set -e
        # the network card stays the same: at a new one's address the other nodes would not look for seconds
        nsenter -t "$ctl" -n ip link add "veth$1" type veth peer name eth0 address "02:00:00:00:00:$(printf %02x "$1")" \
            netns "$node"
        nsenter -t "$ctl" -n ip link set "veth$1" master br0 up
        nsenter -t "$node" -n ip link set lo up
        nsenter -t "$node" -n ip addr add "$subnet.$1/24" dev eth0
        nsenter -t "$node" -n ip link set eth0 up
    )
    : >"$dir/run/$name.network"
}

# --- commands ---------------------------------------------------------------------------------------------------------

has_own_network() { [[ $(readlink "/proc/$1/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }
munge_answers() { munge -S "$dir/munge/socket" -n >/dev/null 2>&1; }
all_idle() { [[ $("$dir/bin/sinfo" -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l) == "$NODES" ]]; }

up() {
    local i
    [[ ! -e $dir/slurm.conf ]] || die "$dir holds a cluster already; take a new directory"
    write_configuration
    : >"$dir/pids"
    (
        umask 077
        head -c 128 /dev/urandom >"$dir/munge/key"
    )
    background munged munged -F --key-file="$dir/munge/key" --socket="$dir/munge/socket" \
        --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed"
    eventually 10 munge_answers || die "munged did not start: $(<"$dir/log/munged.out")"
    background ctl unshare --net --uts sleep infinity
    ctl=$pid
    eventually 10 has_own_network "$ctl" || die "no network namespace: $(<"$dir/log/ctl.out")"
    echo "$ctl" >"$dir/run/ctl.pid"
    nsenter -t "$ctl" -n -u sh -c "hostname ctl && ip link set lo up && ip link add br0 type bridge &&
        ip addr add $subnet.254/24 dev br0 && ip link set br0 up" || die "no bridge"
    background slurmctld nsenter -t "$ctl" -n -u -- slurmctld -D -f "$dir/slurm.conf"
    for ((i = 1; i <= NODES; i++)); do boot_node "$i"; done
    write_wrappers
    eventually 30 all_idle ||
        die "the nodes are not idle after 30 s: $("$dir/bin/sinfo" -N -o '%N %T %E') $(tail -n 5 "$dir"/log/*.log)"
}

down() {
    [[ -e $dir/pids ]] || die "nothing was started in $dir"
    stop '*' # nothing here is kept, and asked politely munged and slurmctld take ten seconds each
    mv "$dir/pids" "$dir/pids.stopped"
}

(($# >= 2)) || die "usage: $0 up|node|kill|boot|link|down DIR ..."
command=$1
mkdir -p "$2"
dir=$(readlink -f "$2")
shift 2
ctl=$(cat "$dir/run/ctl.pid" 2>/dev/null)
export SLURM_CONF=$dir/slurm.conf # without it every command asks DNS for the controller
case $command in
up) up ;;
node) node=$1 && shift && exec nsenter -t "$(<"$dir/run/$node.pid")" -a -- "$@" ;;
kill) stop "$1" && stop "$1-outside" ;;
boot) boot_node "${1#node}" ;;
link) nsenter -t "$ctl" -n ip link set "veth${1#node}" "$2" ;;
down) down ;;
node_main) node_main "$@" ;;
*) die "there is no command $command" ;;
esac
