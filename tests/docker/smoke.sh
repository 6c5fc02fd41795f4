#!/usr/bin/env bash
# Tries an image: tests/docker/smoke.sh IMAGE cpu|cuda
#
# As root, since the folders that are mounted belong to several users. RUNNER is docker (default), podman, or buildah
# for a machine without a container engine. GPUS=all gives a CUDA image the machine's GPUs; without, what needs one is
# named and left out.
set -euo pipefail

RUNNER=${RUNNER:-docker}
GPUS=${GPUS:-}
IMAGE=${1:?name an image: smoke.sh IMAGE cpu|cuda}
KIND=${2:?say which image it is: smoke.sh IMAGE cpu|cuda}
SOMEBODY=12345

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

passed() {
    echo "ok      $*"
}

# inside USER PROGRAM ARGUMENTS...: in a new container, with $work at /data; USER "" is the image's own.
inside() {
    local user=$1
    shift
    if [[ $RUNNER == buildah ]]; then
        buildah run ${user:+--user "$user"} --volume "$work:/data" "$container" -- "$@"
    else
        "$RUNNER" run --rm ${user:+--user "$user"} ${GPUS:+--gpus "$GPUS"} --volume "$work:/data" \
            --entrypoint "$1" "$IMAGE" "${@:2}"
    fi
}

# What runs when no program is named.
entry_point() {
    if [[ $RUNNER == buildah ]]; then
        buildah inspect --format '{{.OCIv1.Config.Entrypoint}}' "$container"
    else
        "$RUNNER" inspect --format '{{.Config.Entrypoint}}' "$IMAGE"
    fi
}

check_user() {
    local uid
    uid=$(inside "" id -u)
    [[ $uid != 0 ]] || fail "runs as root"
    passed "runs as user $uid"
    [[ $(entry_point) == '[flowprep]' ]] || fail "the entry point is '$(entry_point)'"
    passed "enters flowprep"
}

check_nothing_left() {
    local left
    left=$(inside "" sh -c '
        for tool in cc gcc g++ make ld nvcc pip pip3; do command -v $tool; done
        python -c "import pip" 2>/dev/null && echo "module pip"
        find / -xdev "(" -name .cache -o -path "/var/lib/apt/lists/*" -o -path "/src*" ")" -print 2>/dev/null
        true')
    [[ -z $left ]] || fail "inside lies what only a build needs: $left"
    passed "no compiler, no pip, no caches"
}

check_pins() {
    local loose
    loose=$(inside "" python -c '
import importlib.metadata as m, re
for d in m.distributions(): print(re.sub("[-_.]+", "-", d.name).lower(), d.version)' | sort |
        while read -r name version; do
            [[ $name == flowprep || $version == *+cu* ]] || grep -q "^$name==$version\b" "$pins" || echo "$name==$version"
        done)
    [[ -z $loose ]] || fail "not as in constraints.txt: $loose"
    passed "every version is the pinned one"
}

check_engines() {
    local said
    said=$(inside "" flowprep engines)
    grep -q "^live *cpu " <<<"$said" || fail "engine cpu is not live: $said"
    passed "engine cpu is live"
    [[ $KIND == cuda ]] || return 0
    if [[ -n $GPUS ]]; then
        grep -q "^live *cuda " <<<"$said" || fail "engine cuda is not live: $said"
        passed "engine cuda is live"
        return
    fi
    grep -A1 "^missing *cuda " <<<"$said" | grep -q "finds no CUDA device" ||
        fail "engine cuda is missing for another reason than that there is no GPU: $said"
    passed "engine cuda is missing, as it has to be without a GPU (GPUS=all gives some):"
    grep --no-group-separator -A1 -E "^missing *(opencv-)?cuda " <<<"$said" | sed 's/^/        /'
    inside "" python -c '
import cupy
from flowprep.flow.cuda.device import _machine_code
for capability in [(7, 5), (8, 0), (9, 0)]:
    assert _machine_code(cupy, capability, exact=False).startswith(b"\x7fELF")'
    passed "its kernels compile for compute capability 7.5, 8.0 and 9.0"
}

# What KubeRay does with an image: it starts the head, asks with wget whether it is well, and submits the command.
check_kuberay() {
    inside "" bash -c '
        set -euo pipefail
        export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef
        ray start --head --block --port 26379 --num-cpus 1 --object-store-memory 100000000 \
            --dashboard-port 28265 --dashboard-agent-listen-port 25365 >/dev/null 2>&1 &
        trap "kill $!; wait" EXIT
        for asked in 25365/api/local_raylet_healthz 28265/api/gcs_healthz; do
            for ((i = 0; i < 120; i++)); do
                ! wget --tries 1 -T 2 -q -O- http://localhost:$asked | grep -q success || continue 2
                sleep 1
            done
            echo "$asked does not say success"
            exit 1
        done
        ray job submit --address http://localhost:28265 -- flowprep extract --ray-address auto --engine cpu \
            --size native --src /data/ray/demo/videos --out /data/mine/submitted' >"$work/submitted.txt" 2>&1 ||
        fail "a submitted job: $(tail -n 40 "$work/submitted.txt")"
    cmp -s "$work"/mine/shards/train-000000.tar "$work"/mine/submitted/train-000000.tar ||
        fail "a submitted job made different shards"
    passed "a Ray head answers as KubeRay asks and runs a submitted job, the same bytes"
}

# The same videos by two users, with Ray and with plain processes.
check_work() {
    local ray=$work/ray mine=$work/mine others
    install --directory --owner $SOMEBODY --group $SOMEBODY "$ray"
    install --directory --owner 1000 --group 1000 "$mine"
    inside $SOMEBODY:$SOMEBODY flowprep demo /data/ray/demo >"$work/demo.txt" 2>&1 || fail "demo: $(cat "$work/demo.txt")"
    others=$(find "$ray" '!' -user $SOMEBODY -o '!' -group $SOMEBODY)
    [[ -z $others ]] || fail "not user $SOMEBODY's: $others"
    passed "flowprep demo on Ray as --user $SOMEBODY, and all files are that user's"

    inside "" flowprep extract --executor local --size native --src /data/ray/demo/videos \
        --out /data/mine/shards >"$work/mine.txt" 2>&1 || fail "extract: $(cat "$work/mine.txt")"
    inside "" flowprep verify --deep /data/mine/shards >/dev/null || fail "verify finds something"
    cmp -s "$ray"/demo/shards/train-000000.tar "$mine"/shards/train-000000.tar ||
        fail "two users made different shards"
    passed "flowprep extract and verify as the image's own user, the same bytes"

    install --directory --mode 755 "$work/roots"
    inside "" flowprep extract --executor local --src /data/ray/demo/videos --out /data/roots/shards >"$work/roots.txt" 2>&1 &&
        fail "wrote into a folder of root's"
    grep -q "Permission denied" "$work/roots.txt" || fail "of a folder of root's it says: $(cat "$work/roots.txt")"
    passed "a folder that is not the user's: $(grep Hint "$work/roots.txt")"
}

main() {
    [[ $KIND == cpu || $KIND == cuda ]] || fail "say cpu or cuda, not $KIND"
    [[ $(id -u) == 0 ]] || fail "run it as root: the folders that are mounted belong to several users"
    work=$(mktemp --directory "${TMPDIR:-/tmp}/smoke.XXXXXX")
    pins=$(realpath "$(dirname "$0")/../../constraints.txt")
    container=
    if [[ $RUNNER == buildah ]]; then container=$(buildah from "$IMAGE"); fi
    trap '[[ -z $container ]] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
    chmod 755 "$work"
    check_user
    check_nothing_left
    check_pins
    check_engines
    check_work
    check_kuberay
}

main
