# Two commands do everything on a fresh machine: `make demo` and `make test`.
# The rest is for people who change the code. `make help` lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Kernels compiled by the tests stay here between runs.
export PYTHIA_GGUF_CACHE ?= $(CURDIR)/.cache
# The browser of `make test-browser`.
CHROMIUM ?= chromium
# llama.cpp is compiled without AMX: GCC 11 and 12 drop the stores of the tile configuration, and it dies in the first
# product (its issue 20824).
export CMAKE_ARGS := -DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__ $(CMAKE_ARGS)
# Tests start hundreds of processes. Each would compile our sources again where Python is told to keep no bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo report corpus test test-fast test-browser has-chromium check golden bench readme campaign campaign-arm campaign-serve clean

help:
	@echo "make demo       install, quantize the sample to all 19 files, check every byte, let one of them write"
	@echo "make report     measure the sample's files, write their card, and the picture of README.md"
	@echo "make corpus     a labelled corpus in out/corpus, of documentation that Debian packages"
	@echo "make test       install what the tests need and run all of them"
	@echo "make test-fast  the tests that take under a minute together"
	@echo "make test-browser  the tests that click through the page of \`pythia serve\` in Chromium"
	@echo "make check      format, lint, types, import arrows, conventions"
	@echo "make golden     remake the frozen outputs of llama.cpp's own tools (pip downloads what it needs)"
	@echo "make bench      measure for two hours; writes bench/results/"
	@echo "make readme     put the tables of bench/results into README.md and docs/benchmarks.md"
	@echo "make campaign   every format on every kind of CPU, harm at every step (minutes)"
	@echo "make campaign-serve  a hundred thousand requests to pythia serve, right ones and wrong ones (ten minutes)"
	@echo "make campaign-arm  bytes and logits on an emulated ARM CPU, on Debian 12 (two hours; goes on where it was)"

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, this is %d.%d. Try: make PYTHON=python3.12 ...' % sys.version_info[:2] if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev-installed: pyproject.toml constraints.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# llama-cpp-python is compiled once by pip, about five minutes on two cores; pip keeps the wheel.
# A wheel that it kept from before may have AMX: then it is compiled anew.
$(VENV)/.test-installed: pyproject.toml constraints.txt $(VENV)/.dev-installed
	@echo "installing the test dependencies: the first time llama.cpp is compiled, about 5 minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,test]"
	$(BIN)/python -c "import llama_cpp, sys; sys.exit(b'AMX_INT8 = 1' in llama_cpp.llama_print_system_info())" || \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --force-reinstall --no-deps --no-cache-dir llama-cpp-python
	$(PYTHON) -m venv $(VENV)-transformers4
	$(VENV)-transformers4/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt transformers==4.57.6 torch
	@touch $@

$(VENV)/.browser-installed: pyproject.toml constraints.txt tests/browser/package-lock.json $(VENV)/.dev-installed
	@command -v npm >/dev/null || { echo "npm is missing: apt-get install npm"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,browser]"
	mkdir -p $(VENV)/axe
	cp tests/browser/package.json tests/browser/package-lock.json $(VENV)/axe/
	npm ci --silent --prefix $(VENV)/axe
	@touch $@

demo: $(VENV)/.installed
	rm -rf out/nano-GGUF
	$(BIN)/pythia quantize examples/nano --out out/nano-GGUF
	$(BIN)/pythia verify out/nano-GGUF
	$(BIN)/pythia generate out/nano-GGUF/nano.Q4_K_M.gguf "def main(" --max-tokens 48 --seed 7
	@echo 'To see what it thinks: $(BIN)/python -m pip install ".[serve]"; $(BIN)/pythia serve out/nano-GGUF --open'

report: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . "matplotlib>=3.8"
	rm -rf out/nano-GGUF
	$(BIN)/pythia quantize examples/nano --out out/nano-GGUF --keep-f16
	$(BIN)/pythia measure out/nano-GGUF --text examples/nano/heldout.txt --gelu tanh --activations both --chunks 40 -o out/nano-GGUF/report.json
	$(BIN)/pythia plot out/nano-GGUF/report.json -o out/nano-GGUF
	$(BIN)/pythia card out/nano-GGUF
	cp out/nano-GGUF/report.json out/nano-GGUF/perplexity.png docs/sample/

corpus: $(VENV)/.installed
	$(BIN)/pythia data corpus -o out/corpus

# Kernels are compiled before, by both processors: two tests that need the same ones would each compile them.
# Two processes run tests: torch with a thread for each processor in both would take longer.
test: $(VENV)/.test-installed
	$(BIN)/pythia warmup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: $(VENV)/.test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not campaign and not browser"

# Chromium is the system's; axe-core, which finds what keeps people out of a page, is of the npm registry.
test-browser: has-chromium $(VENV)/.browser-installed
	CHROMIUM=$(CHROMIUM) $(BIN)/python -m pytest -q -m browser tests/browser

has-chromium:
	@command -v $(CHROMIUM) >/dev/null || { echo "Chromium is missing: apt-get install chromium, or make test-browser CHROMIUM=/path/to/chrome"; exit 1; }

check: $(VENV)/.dev-installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_arrows.py tests/test_conventions.py tests/test_docs.py

golden: $(VENV)/.test-installed
	$(BIN)/python scripts/golden.py

bench: $(VENV)/.test-installed
	$(BIN)/python bench/bench_encoders.py --save
	$(BIN)/python bench/bench_encoders.py --weighted --save
	$(BIN)/python bench/bench_sampling.py --save
	$(BIN)/python bench/bench_press.py --save
	$(BIN)/python bench/trace_press.py --save
	$(BIN)/python bench/bench_engine.py --save
	$(BIN)/python bench/bench_batch.py --save
	$(BIN)/python bench/bench_serve.py --save
	$(BIN)/python bench/bench_measure.py --save
	$(BIN)/python bench/bench_lm_eval.py --save
	$(BIN)/python bench/bench_order.py --save
	$(BIN)/python bench/bench_dedup.py --save

readme:
	$(BIN)/python scripts/readme.py

campaign: $(VENV)/.test-installed
	$(BIN)/python -m pytest -m campaign

campaign-serve: $(VENV)/.test-installed
	$(BIN)/python scripts/campaign_serve.py

# Installs Debian's qemu-user-static where it is missing; all else stays in the cache.
campaign-arm: $(VENV)/.installed
	$(BIN)/python scripts/campaign_arm.py

clean:
	rm -rf $(VENV) $(VENV)-transformers4 .cache out build dist src/*.egg-info
