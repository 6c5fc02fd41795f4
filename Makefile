# Needs Python 3.10 to 3.13 with pip, and make. Everything goes into .venv.
PYTHON ?= python3
RUN := .venv/bin/

.PHONY: help test test-slow test-gpu test-s3 test-slurm test-hosts images check pins check-pins demo bench faults clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(RUN)python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,train,onnx]'
	touch $@

demo: .venv/installed ## render videos with known motion, extract, verify, picture: demo/
	$(RUN)flowprep demo demo

test: .venv/installed ## the tests, minutes
	$(RUN)python -m pytest --junitxml=.venv/tests.xml

test-slow: .venv/installed ## the long proofs: kills, damages, encoder determinism
	$(RUN)python -m pytest -m slow --timeout=3600

test-gpu: .venv/installed ## what needs a CUDA device
	FLOWPREP_FAIL_WITHOUT_CUDA=1 $(RUN)python -m pytest -m gpu

faults: .venv/installed ## damaged videos and shards, runs under random faults: half an hour, as root
	$(RUN)python tests/faults/fuzz_videos.py --count 1000
	$(RUN)python tests/faults/fuzz_videos.py --guided --minutes 5 --first-seed 200000
	$(RUN)python tests/faults/fuzz_shards.py --count 500
	$(RUN)python tests/faults/runs.py --runs 40
	$(RUN)python tests/faults/runs.py --runs 10 --executor ray --at-a-time 1

test-s3: .venv/installed ## a bucket whose server fails, is full, lets nobody in, and runs that are killed: ten minutes
	$(RUN)python tests/storage/faults.py

images: ## both images, built and tried without a container engine, as root on Debian (docs/images.md)
	tests/docker/build.sh

test-slurm: .venv/installed ## the SLURM file on a SLURM of its own, 13 minutes, as root on Debian
	tests/cluster/slurm.sh

test-hosts: .venv/installed ## a Ray cluster of hosts that are killed, cut off and added, 13 minutes, as root on Debian
	tests/cluster/hosts.sh ../shared/videos

check: .venv/installed ## lint, format, types
	$(RUN)ruff check .
	$(RUN)ruff format --check .
	$(RUN)mypy

UV := .venv/uv/bin/uv
$(UV):
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

pins: $(UV) ## constraints.txt made anew: pins that still fit stay, torch pins its CUDA packages itself
	$(UV) pip compile pyproject.toml --all-extras --universal --python-version 3.10 --quiet \
		--no-header --no-annotate --output-file constraints.txt
	sed -i -E -e '1i # What the tests run with, solved by `make pins` for Python 3.10 to 3.13 and every extra.' \
		-e '/^nvidia-cuda-nvrtc/b' -e '/^(setuptools|triton|nvidia|cuda-[bt])/d' constraints.txt

check-pins: $(UV) ## whether each Python has a solution under the pins, of wheels alone
	for python in 3.10 3.11 3.12 3.13; do $(UV) pip compile pyproject.toml --all-extras --quiet \
		--constraints constraints.txt --only-binary :all: --python-version $$python >/dev/null || exit 1; done

bench: .venv/installed ## the measured tables, under tests/bench/results/ (sample videos beside the checkout)
	$(RUN)python -m pip install --quiet -c constraints.txt -e '.[dev,train,onnx,bench]'
	$(RUN)python tests/bench/stages.py
	$(RUN)python tests/bench/memory.py
	$(RUN)python tests/bench/efficiency.py
	$(RUN)python tests/bench/efficiency.py --executor ray
	$(RUN)python tests/bench/codecs.py --videos ../shared/videos
	$(RUN)python tests/bench/flow.py
	$(RUN)python tests/bench/flow.py --size native
	$(RUN)python tests/bench/flow_accuracy.py
	$(RUN)python tests/bench/flow_accuracy.py --size native
	$(RUN)python tests/bench/flow_accuracy.py --of opencv-cpu
	$(RUN)python tests/bench/flow_motion.py
	$(RUN)python tests/bench/recompute_bars.py
	$(RUN)python tests/bench/report.py
	$(RUN)python tests/bench/scale.py
	$(RUN)python tests/bench/scale_page.py
	$(RUN)python tests/bench/simulation.py
	$(RUN)python tests/bench/rates.py --engine cpu
	$(RUN)python tests/bench/rates.py --engine opencv-cpu --each-s 1

clean: ## remove .venv and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist *.egg-info
