#!/usr/bin/env bash
# Runs pipelines/cluster/extract.sbatch on a SLURM of its own and compares every byte with a run on plain processes:
#   tests/cluster/slurm.sh [VIDEOS]
#
# As root on Debian (apt install slurmctld slurmd slurm-client munge). Two nodes of one core on this machine, in a
# temporary folder; nothing below /etc is used or changed, and all daemons end with the script. ACTIVATE is the
# environment that has flowprep and ray. Without VIDEOS, some of flowprep demo's are rendered. TRY names what to try.
set -euo pipefail

CHECKOUT=$(realpath "$(dirname "$0")/../..")
ACTIVATE=${ACTIVATE:-$CHECKOUT/.venv/bin/activate}
OPTIONS=${OPTIONS:---engine opencv-cpu --size 64 --shard-frames 32}
TRY=${TRY:-undisturbed time_is_up preempted told_to_stop steps_told_to_stop cancelled node_lost gpus nobody_joins}
NODES=2
JOB_S=400 # no job takes longer

fail() {
    echo "FAILED: $*" >&2
    [[ ! -f $work/log ]] || tail -n 40 "$work/log" "$work"/slurm*.log >&2
    exit 1
}

passed() {
    echo "ok      $* (after $SECONDS s)"
}

start_daemons() {
    local address node
    address=$(hostname -I | cut -d' ' -f1)
    mkdir -p "$work"/{munge,state,spool}
    chown munge:munge "$work/munge"
    (umask 077 && head -c 1024 /dev/urandom >"$work/munge/key" && chown munge:munge "$work/munge/key")
    setpriv --reuid munge --regid munge --clear-groups munged --foreground --key-file="$work/munge/key" \
        --socket="$work/munge/socket" --pid-file="$work/munge/pid" --seed-file="$work/munge/seed" \
        --log-file="$work/munge/log" &>/dev/null &
    daemons+=($!)
    until [[ -S $work/munge/socket ]]; do sleep 0.1; done
    cat >"$work/slurm.conf" <<CONF
ClusterName=flowprep
SlurmctldHost=$(hostname -s)($address)
SlurmUser=root
AuthInfo=socket=$work/munge/socket
SlurmctldPort=16817
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdPidFile=$work/slurmd-%n.pid
SlurmdLogFile=$work/slurmd-%n.log
SlurmdSpoolDir=$work/spool/%n
StateSaveLocation=$work/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
GresTypes=gpu
$(for ((node = 1; node <= NODES; node++)); do
        echo "NodeName=n$node NodeHostname=$(hostname -s) NodeAddr=$address Port=$((16820 + node)) CPUs=1 RealMemory=1000 Gres=gpu:1"
    done)
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    echo "Name=gpu File=/dev/zero" >"$work/gres.conf" # a file that exists: no GPU is used
    export SLURM_CONF=$work/slurm.conf
    slurmctld -D &>/dev/null &
    daemons+=($!)
    for ((node = 1; node <= NODES; node++)); do
        slurmd -D -N "n$node" &>/dev/null &
        daemons+=($!)
    done
    until_idle
}

until_idle() {
    for ((i = 0; i < 60; i++)); do
        [[ $(sinfo --noheader --format=%D --states=idle 2>/dev/null) != "$NODES" ]] || return 0
        sleep 0.5
    done
    fail "the nodes are not idle: $(sinfo; tail -n 5 "$work"/slurm*.log)"
}

end_all() {
    scancel --user=root 2>/dev/null || true
    for ((i = 0; i < 20; i++)); do
        [[ -n $(squeue --noheader 2>/dev/null) ]] || break
        sleep 1
    done
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do kill "${daemons[i]}" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}

# submit NAME [SBATCH OPTIONS]: into $work/NAME; the job's number in $job
submit() {
    : >"$work/log"
    job=$(SRC=$videos OUT=$work/$1 sbatch --parsable --nodes="$NODES" --cpus-per-task=1 --mem=0 --time=10 \
        --output="$work/log" "${@:2}" "$CHECKOUT/pipelines/cluster/extract.sbatch")
}

told() {
    scontrol --oneliner show job "$job" | grep -o " $1=[^ ]*" | cut -d= -f2
}

# until_state WANTED: any other end fails
until_state() {
    local state pending=0
    for ((i = 0; i < JOB_S; i++)); do
        state=$(told JobState)
        [[ $state != "$1" ]] || return 0
        case $state in
            PENDING) # SLURM lets a requeued job wait for two minutes, and refuses it at once
                ((++pending % 10)) || scontrol update JobId="$job" StartTime=now 2>/dev/null || true ;;
            RUNNING | COMPLETING) ;;
            *) fail "job $job is $state and not $1" ;;
        esac
        sleep 1
    done
    fail "job $job is still $state after $JOB_S s"
}

# until_committed NAME N: shards that are finished
until_committed() {
    for ((i = 0; i < JOB_S * 5; i++)); do
        [[ $(find "$work/$1/_flowprep/shards" -name '*.json' 2>/dev/null | wc -l) -lt $2 ]] || return 0
        sleep 0.2
    done
    fail "$2 shards of $1 are not finished after $JOB_S s"
}

hashes() {
    (cd "$1" && find . -type d -print -o -type f -exec sha256sum {} + | sort)
}

equal() {
    diff <(hashes "$work/local") <(hashes "$work/$1") >"$work/diff" || fail "$1 is another dataset: $(cat "$work/diff")"
    [[ ! -e /tmp/ray-$job ]] || fail "job $job leaves /tmp/ray-$job"
    ! pgrep -f "ray-$job" >/dev/null || fail "job $job leaves processes: $(pgrep -af "ray-$job")"
}

undisturbed() {
    submit whole
    until_state COMPLETED
    grep -q "$NODES nodes have joined Ray: $NODES cores, 0 GPUs" "$work/log" || fail "not all nodes have joined"
    equal whole
    passed "$NODES nodes, the same bytes as on plain processes"
}

# stopped_and_queued NAME COMMAND...: the job is run again by SLURM, and goes on
stopped_and_queued() {
    local before
    submit "$1"
    until_committed "$1" 2
    before=$(find "$work/$1" -name '*.tar' | wc -l)
    "${@:2}" "$job"
    until_state COMPLETED
    [[ $(told Restarts) == 1 ]] || fail "job $job was started again $(told Restarts) times"
    grep -q "start 2" "$work/log" || fail "there was no second start"
    equal "$1"
    passed "$1 with $before of $n_shards shards finished: queued again, complete, the same bytes"
}

# stopped NAME COMMAND...: the job ends, and another one goes on
stopped() {
    submit "$1"
    until_committed "$1" 2
    "${@:3}" "$job"
    until_state "$2"
    [[ ! -f $work/$1/_flowprep/dataset.json ]] || fail "$1 was finished before it was stopped"
    submit "$1"
    until_state COMPLETED
    equal "$1"
    passed "$1: another job goes on, complete, the same bytes"
}

time_is_up() { stopped_and_queued time-is-up scancel --batch --signal=USR1; }
preempted() { stopped_and_queued preempted scontrol requeue; }
told_to_stop() { stopped told-to-stop FAILED scancel --batch --signal=TERM; }
steps_told_to_stop() { stopped steps-told-to-stop FAILED scancel --signal=TERM; }
cancelled() { stopped cancelled CANCELLED scancel; }

node_lost() {
    local pid
    submit lost
    until_committed lost 2
    scontrol update NodeName=n2 State=DOWN Reason=lost
    for pid in $(grep -lsz "^SLURMD_NODENAME=n2$" /proc/[0-9]*/environ | cut -d/ -f3); do
        ! grep -qz "^SLURM_JOB_ID=$job$" "/proc/$pid/environ" 2>/dev/null || kill -KILL "$pid"
    done
    until_state COMPLETED
    grep -q "its shard is tried again" "$work/log" || fail "no shard was lost with the node"
    equal lost
    scontrol update NodeName=n2 State=RESUME 2>/dev/null || true # it may be back already
    until_idle
    passed "one of $NODES nodes lost with a shard on it: complete, the same bytes"
}

gpus() {
    OPTIONS="--engine cuda" submit gpus --gpus-per-node=1
    until_state FAILED
    grep -q "$NODES nodes have joined Ray: $NODES cores, $NODES GPUs" "$work/log" || fail "Ray does not see the GPUs"
    grep -q "engine 'cuda'" "$work/log" || fail "engine cuda is not what was asked for"
    passed "--gpus-per-node=1: Ray has them, and the missing engine is told: $(grep -m1 Error: "$work/log")"
}

nobody_joins() {
    JOIN_S=3 RAY_HEAD=192.0.2.254 submit nobody
    until_state FAILED
    grep -q "0 of $NODES nodes have joined" "$work/log" || fail "does not say that no node has joined"
    [[ ! -e $work/nobody ]] || fail "has begun nevertheless"
    passed "nodes that do not join: $(grep -o "0 of.*" "$work/log")"
}

main() {
    [[ $(id -u) == 0 ]] || fail "run it as root: it starts slurmctld and slurmd"
    work=$(mktemp --directory "${TMPDIR:-/tmp}/slurm.XXXXXX")
    chmod 755 "$work"
    daemons=()
    trap end_all EXIT
    # shellcheck disable=SC1090
    source "$ACTIVATE"
    export ACTIVATE OPTIONS
    videos=${1:+$(realpath "$1")}
    if [[ -z $videos ]]; then
        videos=$work/videos
        python -c "import pathlib, sys, flowprep.demo as d; d.render_videos(pathlib.Path(sys.argv[1]))" "$videos"
        rm -r "$videos"/{up,down,turn}
    fi
    read -ra options <<<"$OPTIONS"
    flowprep extract --executor local --src "$videos" --out "$work/local" --quiet "${options[@]}"
    n_shards=$(find "$work/local" -name '*.tar' | wc -l)
    start_daemons
    for one in $TRY; do "$one"; done
}

main "$@"
