#!/usr/bin/env bash
# Builds a wheel of OpenCV with CUDA TV-L1 and checks it: ARCHS="80 90" ./build.sh OUT_DIR
#
# ARCHS are compute capabilities, with or without the point. Everything that is downloaded comes from pip's index.
# Needs nvcc 12.8 or later (on PATH or under CUDA_HOME), a C++ compiler, binutils, and Python 3.10 to 3.13 with venv and
# headers.
# With nasm as well, JPEG coding is four times as fast. JOBS is how many compilers run at a time, PYTHON another
# interpreter; TMPDIR must hold 3 GB.
set -euo pipefail

OPENCV=4.14.0.94
# Dependencies are added by OpenCV. No videoio and no highgui: this cv2 opens neither videos nor windows.
MODULES=core,imgproc,imgcodecs,video,optflow,cudev,cudaoptflow,python3
NPP_LIBRARIES="nppc nppial nppicc nppidei nppif nppig nppim nppist nppisu nppitc npps"

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

main() {
    [[ $# == 1 ]] || fail "name one folder for the wheel: ARCHS=\"80 90\" ./build.sh OUT_DIR"
    local archs
    read -r -a archs <<<"${ARCHS//./}"
    check_tools "${archs[@]}"
    mkdir -p "$1"
    local out
    out=$(cd "$1" && pwd)
    work=$(mktemp -d "${TMPDIR:-/tmp}/opencv-cuda.XXXXXX")
    trap '[[ $? == 0 ]] || echo "build.sh: failed; what there is of the build is in $work" >&2' EXIT
    cd "$work"

    fetch_source
    patch_source "${archs[@]}"
    fetch_npp_headers
    make_npp_stubs
    build_wheel "${archs[@]}"
    check_wheel "${archs[@]}"

    cp wheel/*.whl "$out/"
    ls -l wheel
    cd / && rm -rf "$work"
}

check_tools() {
    [[ $# != 0 ]] || fail "set ARCHS, say ARCHS=\"80 90\"; nvidia-smi --query-gpu=compute_cap --format=csv shows a GPU's"
    local arch tool
    for tool in c++ readelf "$PYTHON"; do
        [[ -n $(command -v "$tool") ]] || fail "$tool is missing (Debian: apt install g++ python3-dev python3-venv)"
    done
    "$PYTHON" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "$PYTHON is older than 3.10, or lacks venv (Debian: apt install python3-venv)"
    "$PYTHON" -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h").close()' ||
        fail "$PYTHON lacks its headers (Debian: apt install python3-dev)"
    [[ -x $(command -v nvcc) ]] || fail "nvcc is missing: install CUDA 12.8 or later and set CUDA_HOME to its folder"
    CUDA=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
    [[ $(printf '%s\n' 12.8 "$CUDA" | sort -V | head -1) == 12.8 ]] || fail "nvcc is $CUDA; 12.8 or later is needed"
    for arch; do
        nvcc --list-gpu-code | grep -qx "sm_$arch" ||
            fail "nvcc $CUDA cannot compile for '$arch'; it can for $(nvcc --list-gpu-code | tr -d 'sm_' | xargs)"
    done
}

fetch_source() {
    "$PYTHON" -m venv tools
    tools/bin/pip install --quiet cmake==4.4.5 ninja==1.13.0
    # cmake's own folder first: the cmake in tools/bin is a script that pip's isolated build cannot run.
    PATH=$(tools/bin/python -c 'import cmake; print(cmake.CMAKE_BIN_DIR)'):$work/tools/bin:$PATH
    pip download --no-deps --no-binary opencv-contrib-python-headless "opencv-contrib-python-headless==$OPENCV"
    mkdir source wheel npp
    tar xzf opencv_contrib_python_headless-*.tar.gz --strip-components=1 -C source
}

patch_source() {
    # The version says what is inside; pip takes 4.14.0.94+cu130.sm90 where 4.14.0.94 is asked for.
    local arch label=cu${CUDA/./}
    for arch; do label+=.sm$arch; done
    edit source/cv2/version.py "s/\"$OPENCV\"/\"$OPENCV+$label\"/"
    # One wheel for every Python 3, as OpenCV's own.
    printf '\n[bdist_wheel]\npy_limited_api = cp37\n' >>source/setup.cfg
}

edit() {
    cp "$1" before
    sed -i "$2" "$1"
    ! cmp -s before "$1" || fail "OpenCV $OPENCV has another $1 than this script expects"
}

# OpenCV compiles against NPP's headers. Toolkits made of wheels may lack them.
fetch_npp_headers() {
    local header
    header=$({ echo '#include <npp.h>' | nvcc -E -x cu - 2>/dev/null || true; } | sed -n 's/^# 1 "\(.*npp\.h\)".*/\1/p')
    if [[ -z $header ]]; then
        [[ $CUDA == 13.* ]] || fail "this nvcc finds no npp.h: install the NPP development files of CUDA $CUDA"
        pip download --no-deps --only-binary :all: --dest npp nvidia-npp==13.0.1.2
        "$PYTHON" -m zipfile -e npp/*.whl npp
        header=npp/nvidia/cu13/include/npp.h
        export CPATH=$work/npp/nvidia/cu13/include
    fi
    NPP_INCLUDE=$(dirname "$header")
}

# NPP is not linked: an archive stands in for it whose every function answers "not implemented", which OpenCV turns
# into cv2.error. TV-L1 calls none of them (its resize, multiply, sum and merge are OpenCV's own kernels), the wheel
# stays small and needs no NPP where it is used. What fails: some other functions of cv2.cuda (see README.md).
make_npp_stubs() {
    "$PYTHON" - "$NPP_INCLUDE" >npp/stubs.c <<'PYTHON'
import pathlib, re, sys

text = "".join(path.read_text(errors="replace") for path in sorted(pathlib.Path(sys.argv[1]).glob("npp*.h")))
names = sorted(set(re.findall(r"\bNppStatus\s+(npp\w+)\s*\(", text)))
code = re.search(r"\bNPP_NOT_IMPLEMENTED_ERROR\s*=\s*(-\d+)", text)[1]
print("\n".join(f"int {name}(void) {{ return {code}; }}" for name in names))
PYTHON
    # In sections of their own, so that the linker keeps only those that OpenCV calls; hidden, so that they stand in for
    # no other library's NPP.
    c++ -x c -fPIC -ffunction-sections -fvisibility=hidden -c npp/stubs.c -o npp/stubs.o
    ar rcs npp/libnpp_stubs.a npp/stubs.o
}

build_wheel() {
    local name args=(
        -DWITH_CUDA=ON -DENABLE_CUDA_FIRST_CLASS_LANGUAGE=ON "-DBUILD_LIST=$MODULES"
        "-DCUDA_ARCH_BIN=$(IFS=';' && echo "$*")" -DCUDA_ARCH_PTX=
        -DWITH_CUBLAS=OFF -DWITH_CUFFT=OFF -DWITH_CUDNN=OFF -DWITH_NVCUVID=OFF -DWITH_NVCUVENC=OFF -DWITH_OPENCL=OFF
        # No tries: OpenCV downloads nothing. It does without what it would fetch: these three, and the headers of the
        # hardware optical flow unit (cv2.cuda.NvidiaOpticalFlow_*), which TV-L1 does not use.
        -DOPENCV_DOWNLOAD_TRIES_LIST= -DWITH_IPP=OFF -DWITH_KLEIDICV=OFF -DWITH_ADE=OFF
        # OpenCV's own copies, so that the wheel needs no library of this machine; the rarer formats are left out.
        -DBUILD_ZLIB=ON -DBUILD_JPEG=ON -DBUILD_PNG=ON -DWITH_TIFF=OFF -DWITH_WEBP=OFF -DWITH_OPENEXR=OFF
        -DWITH_OPENJPEG=OFF -DWITH_JASPER=OFF -DWITH_AVIF=OFF -DWITH_JPEGXL=OFF
        -DWITH_LAPACK=OFF -DWITH_EIGEN=OFF -DWITH_VA=OFF
    )
    for name in $NPP_LIBRARIES; do
        args+=("-DCUDA_${name}_static_LIBRARY=$work/npp/libnpp_stubs.a")
    done
    CUDACXX=$(command -v nvcc) CMAKE_ARGS="${args[*]}" CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)} \
        pip wheel --verbose --no-deps --wheel-dir wheel ./source
}

check_wheel() {
    "$PYTHON" -m venv check
    check/bin/pip install --quiet wheel/*.whl nvidia-cuda-cuobjdump
    local cuobjdump library needed arch
    cuobjdump=$(echo check/lib/python3*/site-packages/nvidia/*/bin/cuobjdump)
    library=$(echo check/lib/python3*/site-packages/cv2/cv2*.so)
    needed=$(readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    ! grep -E 'npp|cuda' <<<"$needed" || fail "the wheel needs the libraries named above where it is used"
    "$cuobjdump" --list-elf "$library" >elf.txt
    for arch; do
        grep -q "\.sm_$arch\." elf.txt || fail "the wheel holds no code for $arch"
    done
    check/bin/python - "$@" <<'PYTHON'
import sys

import cv2
import numpy as np

info = cv2.getBuildInformation()
[archs] = [line.split(":")[1].split() for line in info.splitlines() if "NVIDIA GPU arch" in line]
assert archs == sys.argv[1:], f"built for {archs}"
assert callable(cv2.cuda.OpticalFlowDual_TVL1_create) and callable(cv2.cuda.OpticalFlowDual_TVL1.create)

noise = np.random.default_rng(0).integers(0, 255, (128, 160), np.uint8)
image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
flow = cv2.optflow.DualTVL1OpticalFlow_create().calc(image, np.roll(image, 2, axis=1), None)
error_px = np.abs(flow[16:-16, 16:-16] - (2, 0)).mean()
assert error_px < 0.1, f"CPU TV-L1 is {error_px} px off"
ok, code = cv2.imencode(".jpg", image)
assert ok and cv2.imdecode(code, cv2.IMREAD_GRAYSCALE).shape == image.shape
print(f"cv2 {cv2.__version__} for {' '.join(archs)}: CUDA TV-L1 is there, CPU TV-L1 is {error_px:.3f} px off a shift of 2")
PYTHON
}

ARCHS=${ARCHS:-}
PYTHON=${PYTHON:-python3}
PATH=${CUDA_HOME:+$CUDA_HOME/bin:}$PATH:/usr/local/cuda/bin
main "$@"
