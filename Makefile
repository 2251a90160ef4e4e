# The front door: each target does what it needs first, so that `make demo` and `make test` work on a fresh machine.
# The build itself is CMake's (CMakePresets.json names the variants).
MAKEFLAGS += --no-print-directory
FUZZ_SECONDS ?= 60
ASAN_LEAVES_OUT = linear|kill|off|validate
# As many tests at a time as there are cores. Where the device is lavapipe its work is done by the thread that asks for it: to wake others costs more
# than most tests' small dispatches (golden: 50 seconds instead of 270). LP_NUM_THREADS=2 make test, say, tests with them.
CTEST = LP_NUM_THREADS=$${LP_NUM_THREADS:-0} ctest --parallel $$(nproc)
SOURCES = git ls-files '*.c' '*.h' ':!shaders'

.PHONY: all build man demo test asan debug fuzz format check prebuilt ci clean help

all: build

help:
	@echo "make            build build/vkmoe"
	@echo "make demo       fetch a small model, make a mixture of experts of it, fine-tune it and talk to it"
	@echo "make test       build and run the whole suite; no graphics card and no network needed"
	@echo "make asan       the suite with the address and undefined-behaviour sanitizers"
	@echo "make fuzz       every fuzz target for a while (FUZZ_SECONDS=$(FUZZ_SECONDS) over all)"
	@echo "make man        manual pages in build/words/man1; cmake --install build installs them, and shell completion"
	@echo "make format     lay out the sources with clang-format 14;  make check  tells what is not as it should be"
	@echo "make prebuilt   SPIR-V of the modules that older glslc cannot build, for shaders/prebuilt; needs a new one"
	@echo "make clean      remove what was built"

build:
	@tools/setup.sh build
	@test -f build/build.ninja || cmake --preset release
	@cmake --build --preset release

man: build
	@build/vkmoe man --out build/words/man1 && echo "manual pages are in build/words/man1: man build/words/man1/vkmoe.1"

demo: build
	@tools/setup.sh vulkan
	@tools/demo.sh

test: build
	@tools/setup.sh vulkan code
	@$(CTEST) --preset release

asan:
	@tools/setup.sh build vulkan code
	@test -f build-asan/build.ninja || cmake --preset asan
	@cmake --build --preset asan
	@echo "left out here, because they spend their time in device code, which is not instrumented: $(ASAN_LEAVES_OUT)"
	@$(CTEST) --preset asan -E '^($(ASAN_LEAVES_OUT))$$'

debug:
	@tools/setup.sh build
	@test -f build-debug/build.ninja || cmake --preset debug
	@cmake --build --preset debug

fuzz:
	@tools/setup.sh build ci
	@tools/fuzz.sh $(FUZZ_SECONDS)

format:
	@$(SOURCES) | xargs clang-format-14 -i

prebuilt:
	@tools/prebuilt.sh make

check:
	@tools/check_structure.sh
	@tools/bugs.sh --check
	@tools/prebuilt.sh check
	@$(SOURCES) | xargs clang-format-14 --dry-run -Werror

ci:
	@.ci/run

clean:
	rm -rf build build-asan build-debug build-fuzz
