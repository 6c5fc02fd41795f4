#!/usr/bin/env bash
# Runs flowprep extract on a Ray cluster of separate hosts, and compares every byte with a run on plain processes:
#   tests/cluster/hosts.sh VIDEOS
#
# As root on Debian (apt install iproute2), with s3fs and moto[server] beside flowprep. A host is a network namespace
# with an address on a bridge, and its own processes, name, temporary folder and /dev/shm; everything else of this
# machine it can only read, and the videos not at all: they and the shards lie in a bucket, which a server on the head
# keeps. Nothing is left behind. TRY names what to try, PYTHON the interpreter with flowprep.
set -euo pipefail

CHECKOUT=$(realpath "$(dirname "$0")/../..")
PYTHON=${PYTHON:-$CHECKOUT/.venv/bin/python}
OPTIONS=${OPTIONS:---engine cpu --size 320 --clip-frames 16 --clip-stride 4 --shard-frames 64}
TRY=${TRY:-undisturbed unshared autoscaled disturbed}
NET=10.77.0
BUCKET=s3://flowprep
export AWS_ENDPOINT_URL=http://$NET.1:5000 AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_DEFAULT_REGION=us-east-1
HEAD=$NET.1:6379
CUT_S=90    # longer than Ray takes to give a node up
PID_FILE=/run/flowprep-hosts.pid
WAIT_S=300  # nothing that is waited for takes longer

fail() {
    echo "FAILED: $*" >&2
    [[ ! -f ${work:-}/log ]] || tail -n 40 "$work/log" >&2
    exit 1
}

passed() {
    echo "ok      $* (after $SECONDS s)"
}

# What runs as the first process of a host, until it is killed: Ray, started again when it ends, as systemd would.
be_a_host() {
    local name=$1 address=$2 place=(--address="$HEAD" --num-cpus=1)
    export HOME=$work/own TMPDIR=$work/own
    hostname "$name"
    ip link set lo up
    mount -t tmpfs "$name" "$work/own"
    mount -t tmpfs "$name" "$videos"
    mount -t tmpfs "$name" /dev/shm
    mount -o remount,bind,ro /
    case $name in
        head) place=(--head --port="${HEAD#*:}" --num-cpus=0 --include-dashboard=false) ;;
        auto)
            place=(--head --num-cpus=0 --include-dashboard=false --autoscaling-config="$work/autoscaler.json")
            export RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1
            ;;
    esac
    while true; do
        "$PYTHON" -m ray.scripts.scripts start --block "${place[@]}" --node-ip-address="$address" --temp-dir="$work/own/ray" \
            --object-store-memory=$((80 << 20)) --disable-usage-stats || true
        sleep 1
    done
}

# add NAME NUMBER: a host with the address $NET.NUMBER
add() {
    local name=$1
    outer[$name]=
    ip netns add "fp-$name"
    ip link add "fp-$name" type veth peer name eth0 netns "fp-$name"
    ip link set "fp-$name" master fp-bridge up
    ip -n "fp-$name" address add "$NET.$2/24" dev eth0
    ip -n "fp-$name" link set eth0 up
    ip netns exec "fp-$name" unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
        bash -c "$(declare -p work videos HEAD PYTHON); $(declare -f be_a_host); be_a_host $name $NET.$2" &>"$work/$name.log" &
    outer[$name]=$!
}

# on NAME COMMAND...: run on a host
on() {
    local first
    first=$(pgrep -P "${outer[$1]}")
    nsenter --target "$first" --mount --uts --ipc --net --pid --wd="$work/own" -- \
        env HOME="$work/own" TMPDIR="$work/own" "${@:2}"
}

# remove NAME: its network
remove() {
    ip link delete "fp-$1" 2>/dev/null || true
    ip netns delete "fp-$1" 2>/dev/null || true
}

# kill_host NAME: all of its processes at once
kill_host() {
    disown "${outer[$1]}" # bash would tell of it
    kill -KILL "$(pgrep -P "${outer[$1]}")"
    remove "$1"
}

# Of a run that was killed itself
remove_left() {
    local name
    [[ ! -e $PID_FILE ]] || ! kill -0 "$(<"$PID_FILE")" 2>/dev/null || fail "process $(<"$PID_FILE") is at it already"
    echo $$ >"$PID_FILE"
    for name in $(ip netns list | grep -o '^fp-[a-z0-9]*' || true); do
        ip netns pids "$name" | xargs --no-run-if-empty kill -KILL
        remove "${name#fp-}"
    done
    ip link delete fp-bridge 2>/dev/null || true
}

end_all() {
    local name
    for name in "${!outer[@]}"; do
        disown "${outer[$name]}" 2>/dev/null || true # may be gone, or never have come
        kill -KILL "${outer[$name]}" 2>/dev/null || true
        remove "$name"
    done
    wait
    ip link delete fp-bridge 2>/dev/null || true
    rm -rf "$work" "$PID_FILE"
}

# until_true COMMAND...
until_true() {
    for ((i = 0; i < WAIT_S * 5; i++)); do
        ! "$@" || return 0
        [[ -z ${run:-} ]] || kill -0 "$run" 2>/dev/null || fail "the run has ended before: $*"
        sleep 0.2
    done
    fail "not after $WAIT_S s: $*"
}

n_alive() {
    on "${from:-head}" "$PYTHON" -c "import ray; ray.init('${address:-$HEAD}', log_to_driver=False, logging_level='CRITICAL'); \
print(sum(n['Alive'] for n in ray.nodes()))" 2>/dev/null || echo 0
}

are_alive() {
    [[ $(n_alive) == "$1" ]]
}

# extract OUT [OPTIONS]: from the head, each line of what it says with the time
extract() {
    # shellcheck disable=SC2086
    on "${from:-head}" "$PYTHON" -m flowprep extract --src "${src:-$BUCKET/videos}" --out "$1" --ray-address "${address:-$HEAD}" \
        --log-json $OPTIONS "${@:2}" 2>&1 |
        while IFS= read -r line; do printf '%(%s)T %s\n' -1 "$line"; done >"$work/log"
}

# said N PATTERN: whether so many lines of the run say so
said() {
    [[ $(grep -c -- "$2" "$work/log") -ge $1 ]]
}

# since TIME PATTERN: seconds until a line said so
since() {
    echo $(($(grep -m1 -- "$2" "$work/log" | cut -d' ' -f1) - $1))
}

# Of what is the same wherever the videos lie: shards, marks, tables of samples
hashes() {
    (cd "$1" && find . -type f ! -name runs.jsonl ! -name manifest.parquet ! -name config.toml ! -name dataset.json \
        -exec sha256sum {} + | sort -k2)
}

# copy FROM TO: one of them in the bucket
copy() {
    "$PYTHON" -c 'import s3fs, sys; s3 = s3fs.S3FileSystem(); to = sys.argv[2]
(s3.put if to.startswith("s3:") else s3.get)(sys.argv[1], to, recursive=True)' "$1/" "$2"
}

# equal OUT [LOCAL]
equal() {
    rm -rf "$work/copy"
    copy "$1" "$work/copy"
    diff <(hashes "${2:-$work/local}") <(hashes "$work/copy") >"$work/diff" || fail "$1 is another: $(cat "$work/diff")"
}

undisturbed() {
    extract "$BUCKET/whole" || fail "the run has failed"
    grep -q "3 workers on 3 nodes" "$work/log" || fail "not all hosts have worked"
    equal "$BUCKET/whole"
    passed "head and three hosts: the same bytes as on plain processes"
}

# Folders that the head alone has
unshared() {
    ! extract "$work/own/out" || fail "a folder of the head alone was taken for --out"
    said 1 "--out is there on this machine only: h1 ($NET.2), h2" || fail "does not say who sees no --out"
    on head mkdir "$work/own/videos"
    on head touch "$work/own/videos/a.mp4"
    ! src=$work/own/videos extract "$BUCKET/none" || fail "a folder of the head alone was taken for --src"
    said 1 "--src $work/own/videos is there on this machine only: h1" || fail "does not say who sees no --src"
    passed "folders that the head alone has are refused: $(grep -m1 Error: "$work/log" | cut -d' ' -f2-)"
}

# A head with an autoscaler that starts up to two nodes of one core beside it
autoscaled() {
    local OPTIONS="--engine constant --size 64 --shard-frames 64" from=auto address=$NET.9:6379
    cat >"$work/autoscaler.json" <<'JSON'
{"cluster_name": "auto", "max_workers": 2, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
 "provider": {"type": "fake_multinode", "use_node_id_as_ip": true, "disable_node_updaters": true,
              "disable_launch_config_check": true},
 "available_node_types": {
   "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
   "one": {"resources": {"CPU": 1, "object_store_memory": 80000000}, "node_config": {}, "max_workers": 2}},
 "head_node_type": "ray.head.default", "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [],
 "file_mounts_sync_continuously": false, "rsync_exclude": [], "rsync_filter": [], "initialization_commands": [],
 "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [],
 "worker_start_ray_commands": []}
JSON
    # shellcheck disable=SC2086
    "$PYTHON" -m flowprep extract --executor local --src "$videos" --out "$work/small" --quiet $OPTIONS
    add auto 9
    until_true are_alive 1
    ! extract "$BUCKET/auto" || fail "a cluster without cores was taken"
    said 1 "has no cores" || fail "does not say that there are no cores"
    extract "$BUCKET/auto" --workers 2 || fail "the run has failed"
    said 1 "no cores; waiting for others to come" || fail "does not say that it waits"
    equal "$BUCKET/auto" "$work/small"
    until_true grep -q "Removing 2 nodes" "$(find "/proc/$(pgrep -P "${outer[auto]}")/root$work/own/ray/" -name monitor.log)"
    kill_host auto
    passed "an autoscaler starts the nodes that --workers asks for, and ends them afterwards"
}

disturbed() {
    local killed cut joined
    extract "$BUCKET/rough" &
    run=$!
    until_true said 3 '"event": "shard"'
    cut=$EPOCHSECONDS
    ip link set fp-h2 down
    killed=$EPOCHSECONDS
    kill_host h1
    joined=$EPOCHSECONDS
    add h4 5
    until_true said 1 "node h4 .*: 1 workers more"
    passed "h4 added: it had a worker after $(since "$joined" "node h4 .*: 1 workers more") s"
    until_true said 1 "node h1 .* is gone"
    passed "h1 killed: its loss was known after $(since "$killed" "node h1 .* is gone") s"
    until_true said 1 "node h2 .* is gone"
    passed "link of h2 cut: its loss was known after $(since "$cut" "node h2 .* is gone") s"
    sleep $((cut + CUT_S - EPOCHSECONDS))
    cut=$EPOCHSECONDS
    ip link set fp-h2 up
    until_true said 1 "node h2 .*: 1 workers more"
    passed "link of h2 restored: it had a worker after $(since "$cut" "node h2 .*: 1 workers more") s"
    wait "$run" || fail "the run has failed"
    run=
    ! said 1 '"failures": \[{' || fail "clips were lost"
    equal "$BUCKET/rough"
    passed "one host killed, one cut for $CUT_S s, one added: the same bytes"
}

made_bucket() {
    "$PYTHON" -c "import s3fs; s3fs.S3FileSystem().mkdir('$BUCKET')" &>/dev/null
}

main() {
    [[ $(id -u) == 0 ]] || fail "run it as root: it makes network namespaces"
    remove_left
    work=$(mktemp --directory "/tmp/fp.XXX") # short: Ray puts sockets into it
    declare -gA outer=()
    trap end_all EXIT
    videos=$(realpath "$1")
    PYTHONPATH=$CHECKOUT
    RAY_AUTH_MODE=token
    RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
    export PYTHONPATH RAY_AUTH_MODE RAY_AUTH_TOKEN
    mkdir "$work/own"
    ip link add fp-bridge type bridge
    ip address add "$NET.254/24" dev fp-bridge
    ip link set fp-bridge up
    # shellcheck disable=SC2086
    "$PYTHON" -m flowprep extract --executor local --src "$videos" --out "$work/local" --quiet $OPTIONS
    passed "$(find "$work/local" -name '*.tar' | wc -l) shards on plain processes"
    add head 1
    for number in 1 2 3; do add "h$number" $((number + 1)); done
    until_true are_alive 4
    on head "$PYTHON" -m moto.server --host 0.0.0.0 --port 5000 &>"$work/moto.log" &
    until_true made_bucket
    copy "$videos" "$BUCKET/videos"
    for one in $TRY; do "$one"; done
}

main "$@"
