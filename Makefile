# make demo   from nothing to a trained, evaluated, pictured model     make test   the tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
# Ranks of the demo: all GPUs of this machine (as many as share its batch of 32), or two processes on the CPU.
RANKS = $(shell $(BIN)/python -c "import torch; n = torch.cuda.device_count(); print(max((r for r in (1, 2, 4, 8, 16) if r <= n), default=2))")
# bf16 but on processors that lack it: there it takes five times as long.
PRECISION = $(shell $(BIN)/python -c "from collagan_dist.distributed.devices import has_bf16, pick_device; from collagan_dist.types import World; print('bf16' if has_bf16(pick_device(World())) else 'fp32')")
# Not --standalone: its agent listens to everybody, and unpickles what it is told.
PORT = $(shell $(BIN)/python -c "import socket; s = socket.socket(); s.bind(('', 0)); print(s.getsockname()[1])")
TORCHRUN = OMP_NUM_THREADS=1 $(BIN)/torchrun --master-addr 127.0.0.1 --master-port $(PORT) --nproc-per-node $(RANKS) -m collagan_dist

PYTHONS ?= $(PYTHON)

.PHONY: setup demo test test-full test-dashboard test-versions check bench gpu reference docs pictures model clean-demo

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# Both continue: what is there already is not made again.
demo/shards/manifest.json: | setup
	$(BIN)/collagan draw demo/faces --count 6000 --seed 1
	$(BIN)/collagan pack drawn --root demo/faces --out demo/shards --set store_size=88

demo: setup demo/shards/manifest.json
	$(TORCHRUN) train demo --data demo/shards --out demo/run --set runtime.precision=$(PRECISION)
	$(TORCHRUN) evaluate demo/run
	$(BIN)/collagan report demo/run
	@echo "look at:"
	@echo "  demo/run/report.html"
	@ls demo/run/grids/step-*.png | tail -1 | sed 's/^/  /'

# A small model to try, on the same faces. It is exported once, as an export goes to an empty folder. model/ is what `collagan export` writes, 4 MB with its model card.
model: setup demo/shards/manifest.json
	$(TORCHRUN) train demo --data demo/shards --out demo/small --set model.widths.generator=12 --set runtime.precision=$(PRECISION)
	$(TORCHRUN) evaluate demo/small
	test -e model/manifest.json || $(BIN)/collagan export demo/small --out model
	@echo "try it: collagan complete model demo/faces/Img/img_celeba/006000.jpg --out completed --hole block"

clean-demo:
	rm -rf demo model

# Three workers for two cores, each with whole files: many tests wait for processes more than they compute.
test: setup
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-full: setup test-dashboard
	COLLAGAN_FULL=1 $(BIN)/python -m pytest

# An environment of their own: where the dashboard is installed, Ray starts its agent on every node, which makes all other tests of Ray slower.
test-dashboard:
	$(MAKE) setup VENV=.venv-dashboard EXTRAS=dev,dashboard
	COLLAGAN_REQUIRE=dashboard .venv-dashboard/bin/python -m pytest -m dashboard

# Environments of the oldest and the newest admitted versions, an hour or more for each Python.
test-versions:
	$(PYTHON) -m tests.environments $(addprefix --python ,$(PYTHONS))

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The page and the schema of all keys, from collagan_dist/config/tree.py; tests hold that they are the committed ones.
reference: setup
	$(BIN)/collagan config --reference > docs/configuration.md
	$(BIN)/collagan config --schema > collagan_dist/presets/config.schema.json

# The documentation as a site: site/index.html. (The variable silences an announcement of its theme.)
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The pictures of README.md, from any run folder: docs/images.
RUN ?= demo/run
pictures: setup
	$(BIN)/python docs/pictures.py $(RUN)

bench: setup
	$(BIN)/python -m benchmarks

# All GPU tests and benchmarks on the device that is here, and one page: benchmarks/gpu_check.md.
gpu: setup
	$(BIN)/python -m benchmarks.gpu_check
