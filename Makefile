# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Only the tests and training need it. Where pip would fetch a CUDA build of several GB, set
# PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds, or TORCH to the requirement you want.
TORCH ?= torch==2.13.0
NATIVE := $(wildcard runtime/native/*.cpp runtime/native/*.h runtime/native/*.cu runtime/native/*.cuh)

.PHONY: demo test lint types format check bench bench-peers gpu-bench soak wheel clean native-aarch64 gpu-check kernels

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py

# Two files of tests at a time, each with one thread of OpenMP: more would fight for the cores.
TEST_PROCESSES ?= 2
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

types: $(VENV)/.test
	$(BIN)/mypy

check: lint types test

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(NATIVE)

bench: $(VENV)/.test
	mkdir -p build
	$(BIN)/python -m pytest benchmarks --benchmark-columns=median,iqr,max,rounds --benchmark-json=build/micro.json
	$(BIN)/python benchmarks/caption_latency.py --out benchmarks/records/caption_latency.json
	$(BIN)/python benchmarks/cold_start.py --out benchmarks/records/cold_start.json
	$(BIN)/python benchmarks/bench_overhead.py --out benchmarks/records/bench_overhead.json
	test ! -f benchmarks/records/micro.json || $(BIN)/python benchmarks/regressions.py build/micro.json

# The default model, ViT-GPT2's size and BLIP's base size (random weights) against what people run
# today, each peer in its own environment; 12 GB of files in build/peers.
PHOTOGRAPHS ?= photos
PEERS := $(BIN)/python benchmarks/peers
bench-peers: $(VENV)/.test
	$(PEERS)/environments.py build/peers
	for name in default vit-gpt2 blip-base; do \
		test -d build/peers/$$name || $(PEERS)/models.py $$name build/peers/$$name || exit 1; \
		test -f build/peers/$$name-int8.edgecap || $(PEERS)/bundles.py build/peers/$$name \
			--photographs $(PHOTOGRAPHS) || exit 1; \
	done
	test -f build/peers/vit-gpt2-encoder.onnx || $(PEERS)/hub_encoder.py build/peers/vit-gpt2
	$(PEERS)/run.py default --photographs $(PHOTOGRAPHS) --pictures 8 --rounds 100 --tokens 12 \
		--out benchmarks/records/peers_default.json
	$(PEERS)/run.py vit-gpt2 --photographs $(PHOTOGRAPHS) \
		--pictures 3 --rounds 5 --out benchmarks/records/peers_vit_gpt2.json
	$(PEERS)/run.py vit-gpt2 --photographs $(PHOTOGRAPHS) --second \
		--pictures 3 --rounds 5 --out benchmarks/records/peers_vit_gpt2_second.json
	$(PEERS)/run.py blip-base --photographs $(PHOTOGRAPHS) \
		--pictures 2 --rounds 4 --out benchmarks/records/peers_blip_base.json
	$(PEERS)/tables.py --write

# On a machine with a GPU; elsewhere the record says that nothing was run. PICTURES=FOLDER compares
# the captions of 500 photographs, too.
gpu-bench: $(VENV)/.test
	$(BIN)/python benchmarks/gpu/launches.py --out benchmarks/records/gpu_launches.json
	$(BIN)/python benchmarks/gpu/run.py $(if $(PICTURES),--pictures $(PICTURES)) --out benchmarks/records/gpu.json
	$(BIN)/python benchmarks/gpu/tables.py --write

soak: $(VENV)/.test
	$(BIN)/python benchmarks/soak_stream.py $(VIDEO) --minutes 60 --out benchmarks/records/soak_stream.json

# The kernels' tests on this machine's GPU, built by its nvcc.
gpu-check: $(VENV)/.test
	@mkdir -p build
	$(BIN)/python tools/compile_kernels.py --library build/libedgecap_cuda.so --targets native
	EDGECAP_CUDA_LIBRARY=build/libedgecap_cuda.so $(BIN)/python -m pytest -m gpu

# What the CUDA kernels take on every target GPU; needs nvcc and no GPU.
kernels: $(VENV)/.test
	$(BIN)/python tools/compile_kernels.py

wheel: $(VENV)/.test
	$(BIN)/pip wheel --no-deps -w dist .

clean:
	rm -rf build dist *.egg-info

$(VENV)/bin/python:
	@sh tools/prerequisites.sh
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip

$(VENV)/.demo: pyproject.toml CMakeLists.txt $(wildcard runtime/native/*) | $(VENV)/bin/python
	$(BIN)/pip install -q scikit-build-core nanobind
	$(BIN)/pip install -q --no-build-isolation -e . "scikit-image>=0.24"
	@touch $@

$(VENV)/.test: pyproject.toml CMakeLists.txt $(wildcard runtime/native/*) | $(VENV)/bin/python
	$(BIN)/pip install -q $(TORCH)
	$(BIN)/pip install -q scikit-build-core nanobind
	$(BIN)/pip install -q --no-build-isolation -e ".[all,test]"
	@touch $@

# The C++ core for Arm, built by a cross compiler and run under QEMU; decoder steps give the bits of
# this machine's processor.
native-aarch64: $(VENV)/.test
	@mkdir -p build
	aarch64-linux-gnu-g++ -std=c++17 -O2 -static -ffp-contract=off -fno-trapping-math -I runtime/native \
		tests/runtime/decoding/beam_sanitizer.cpp runtime/native/beam_cpu.cpp \
		runtime/native/beam_candidates.cpp runtime/native/logit_tiles.cpp -o build/beam_aarch64
	qemu-aarch64 build/beam_aarch64
	$(BIN)/python -m pytest -q tests/runtime/native/test_step_sanitizers.py -k arm
