#!/usr/bin/env bash
# Flow on a machine with a CUDA device: tests, then the benchmarks; at most 10 minutes. Needs no Ray
# and no network.
#
#   tests/gpu/run.sh OUT [WHEELS [VIDEOS]]
#
# OUT gets tests.xml, log.txt, flow_cuda.json and extract_cuda.json. WHEELS is a folder of wheels
# that this Python lacks (av, an OpenCV with CUDA, tomli-w, ...); VIDEOS has the sample videos of
# tests/bench/flow_pairs.json, without which there are no benchmarks. FLOWPREP_COMMIT names what is
# measured where there is no git. Ends in failure when a test or a benchmark failed.
set -uo pipefail
out=$(mkdir -p "${1:?usage: tests/gpu/run.sh OUT [WHEELS [VIDEOS]]}" && cd "$1" && pwd) || exit 2
wheels=${2:+$(cd "$2" && pwd)}
videos=${3:+$(cd "$3" && pwd)}
cd "$(dirname "$0")/../.." || exit 2
python=${PYTHON:-python3}
export PYTHONPATH=$PWD FLOWPREP_FAIL_WITHOUT_CUDA=1 PYTHONUNBUFFERED=1
if [ -n "$wheels" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl ||
        exit 2
    PYTHONPATH=$PWD:$site
fi
for module in cupy cv2 av pyarrow click fsspec rich tomli_w hypothesis pytest pytest_timeout; do
    "$python" -c "import $module" || {
        echo "run.sh: $module is missing; put its wheel into the folder of wheels" >&2
        exit 2
    }
done
bench() {
    timeout "$1" "$python" "tests/bench/$2.py" --videos "$videos" &&
        cp "tests/bench/results/$2.json" "$out/"
}
{
    "$python" -m flowprep engines
    timeout 240 "$python" -m pytest -o addopts= --import-mode=importlib -q -rs \
        -p no:cacheprovider -W default -o timeout=0 --junitxml="$out/tests.xml" \
        tests/gpu/test_cuda.py tests/gpu/test_opencv_cuda.py
    failed=$?
    if [ -n "$videos" ]; then
        bench 140 flow_cuda || failed=1
        bench 200 extract_cuda || failed=1
    fi
    exit "$failed"
} 2>&1 | tee "$out/log.txt"
exit "${PIPESTATUS[0]}"
